"""
Text that others write: merchant names, memos, an analyst's notes.

None of it reaches a prompt. It is shown as a quotation, cleaned and cut; where it looks as if it addressed a machine, that is told
as a sign of fraud, for honest merchants have no reason to.
"""

import re
import unicodedata
from typing import Final

SHOWN: Final = 60  # characters of a name that are shown

_INVISIBLE: Final = frozenset({"Cf", "Cc", "Co", "Cs"})
_JOINERS: Final = "‌‍"  # needed inside words of Indic and Persian scripts and in emoji; at other places hidden text
_SCRIPTS: Final = re.compile(r"^(LATIN|CYRILLIC|GREEK|ARMENIAN|CHEROKEE)\b")
_MARKUP: Final = re.compile(
    r"</?(?:script|img|svg|iframe|style|link|body|html|div|span|table|input|form|meta|object|b|i|u|a|p|br|h[1-6])\b[^>]{0,200}>|<!|</?(?:function\w*|system|tool\w*)\b|</(?:script|system|facts|data|prompt|instructions?|user|assistant|tool\w*|context|input|div|span|body|html|a)\b|[{\[]\s*[\"'“][\w ]+[\"'”]\s*:|```|<[|]|[|]>|\[/?(?:inst|system|user|assistant)\]|^\s*(?:system|assistant|user|ai)\s*:|"
    r"#{2,}|={4,}|-{5,}|\$\{|\{\{|\[\w[^\]]*\]\(|^#+\s|\*\*[^*]+:?\*\*\s*\w|['\"]\s*;|[\"'”]\s*[,:]\s*[\"'“]\w+[\"'”]\s*:|\b(?:tool result|observation|thought|action(?: input)?|final_answer)\s*:|\b\w+_\w+\([^)]*\)|;\s*(?:update|drop|delete|insert|select)\b|\b[TSEBCKDHQRVN]\d\s*\(\w+\)\s*:|calibrated probability|similar closed cases|javascript:|https?:|data:text|on(?:error|load|click)\s*=|function_?call|tool_?calls?|"
    r"\bEND (?:OF )?(?:DATA|FACTS|INPUT|PROMPT)\b|\\u[0-9a-f]{4}|\\n",
    re.I,
)
# who is spoken to, and what is asked for: a name may hold one of these, hardly both
_ADDRESSED: Final = re.compile(
    r"\b(?:ignor\w*|disregard\w*|forget|override|overrule|overwrite|bypass|skip|pretend|act as|you are|you must|you should|note to|attention|"
    r"reviewer|analyst|assistant|chatbot|language model|system prompt|llm|gpt|chatgpt|claude|llama|gemini|ai model|model:?|agent|prompts|instructions?|instruction|system|developers?|whoever|pretend|penali[sz]ed|flag|developer mode|jailbreak|dan mode|"
    r"mention|respond|reply|answer|output|print|say|write|return|repeat|translate|summari[sz]e|classify|label|mark|treat|set|change|conclude|state|confirm|report|tell|decide|consider|"
    r"please|kindly|do not|don't|never|always|must|from now on|let's|kindly|for the (?:summary|record|report)|new task|remarque|hinweis|nota|bitte|merci|por favor|per favore|veuillez|obs:|"
    r"bỏ qua|đánh dấu|ignora\w*|olvida\w*|ignorez|oubliez|ignorier\w*|vergiss|negeer|ignorera|zignoruj|игнорируй\w*|забудь\w*|dimentica\w*|esque[cç]a\w*|desconsidere|"
    r"instruc\w+|anweisung\w*|istruzion\w+|instruções|инструкц\w+|polecen\w+|talimat\w*|yoksay\w*|responde\w*|répond\w+|antworte\w*|marque\w*|markier\w*|approuv\w+|genehmig\w+|aprueba\w*|aprobar|aprove\w*|approva\w*|одобр\w+|onayla\w*)\b",
    re.I,
)
_WANTED: Final = re.compile(
    r"\b(?:summary|cardholder|further checks?|trusted|partner|innocent|whole answer|bank|banque|banco|validée?|freigegeben|geprüft|clore|schließen|cerrar|kontrolle|previous|prior|above|earlier|preceding|system prompt|what_happened|instructions?|rules?|guidelines?|policy|safe|benign|dismiss\w*|skip|row|scored|alerts?|this one|fine|when unsure|no need|must be|must not|legitimate|genuine|approved?|approve|approval|not fraud\w*|no fraud|non-?fraud\w*|fraud\w*|low risk|risk|"
    r"verified|trusted|whitelist\w*|score|probability|alert|case|close|release|clear(?:ed)?|transaction|payment|customer confirmed|evidence|verdict|decision|outcome|confidential|secret|api key|password|json|"
    r"anterior\w*|précédent\w*|vorherig\w*|bisherig\w*|precedent\w*|anteriores|предыдущ\w+|poprzedni\w*|önceki|legítim\w+|légitime|legitim\w*|legitt?im\w+|seguro|segura|sicher\w*|sûre?|безопасн\w+|законн\w+|transacc?i[oó]n|transaktion|transação|transazione|транзакци\w+|işlem\w*|betrug\w*|fraude|frode|мошеннич\w+|transakcj\w+|wcześniejsz\w+|hướng dẫn|an toàn|giao dịch|instruc\w+|instrucciones|anweisung\w*|istruzion\w+|инструкц\w+|talimat\w*|polecen\w+)\b",
    re.I,
)
_EASTERN: Final = re.compile(
    r"(?:忽略|忽視|忽视|无视|無視|遵循|指示|指令|批准|批準|标记|標記|視為|视为|回答|输出|輸出|承認|してください|合法|正当|正規|무시|지시|승인|합법|"
    r"تجاهل|التعليمات|وافق|شرعي|معاملة آمنة|अनदेखा|निर्देश|स्वीकृत|התעלם|הוראות)"
)
_ENCODED: Final = re.compile(
    r"(?:[A-Za-z0-9+/]{40,}={0,2}|(?:%[0-9a-f]{2}.{0,12}?){4,}|(?:&#x?[0-9a-f]+;){3,}|(?:\\x[0-9a-f]{2}){4,})", re.I
)


def visible(text: str) -> str:
    """A text without characters that hide or turn others, its white space in single blanks."""
    kept = (" " if one in "\t\n\r\v\f" else "" if unicodedata.category(one) in _INVISIBLE else one for one in text)
    return " ".join("".join(kept).split())


def quoted(text: str | None, longest: int = SHOWN) -> str:
    """A text as it may be shown between quotation marks: visible, and cut. Escaping is the page's."""
    whole = visible(text or "")
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def suspicious(text: str) -> bool:
    """Whether a text looks as if it were written for a machine: hidden characters, mixed scripts, markup, instructions."""
    if not text:
        return False
    if _hidden(text) or len(text) > 500:
        return True
    plain = unicodedata.normalize("NFKC", visible(text))
    return any(_addresses_a_machine(form) for form in {plain, _spaced_out(plain), _in_digits(plain)})


def _addresses_a_machine(plain: str) -> bool:
    if _mixed(plain) or _MARKUP.search(plain) or _ENCODED.search(plain) or len(_EASTERN.findall(plain)) >= 2:
        return True
    addressed = {match.group().lower() for match in _ADDRESSED.finditer(plain)}
    wanted = {match.group().lower() for match in _WANTED.finditer(plain)}
    return bool(addressed and wanted and len(addressed | wanted) >= 2 and len(plain.split()) >= 3)


def _spaced_out(text: str) -> str:
    """``i g n o r e   t h i s`` as ``ignore this``, where most of a text is written so."""
    words = text.split(" ")
    if sum(len(word) == 1 for word in words) < 8:
        return text
    joined = re.sub(r"(?<=\b\w) (?=\w\b)", "", text)
    return " ".join(
        [joined, *re.findall("ignore|previous|instructions?|rules|approve|fraud|system|legitimate", "".join(words), re.I)]
    )


def _in_digits(text: str) -> str:
    """``1gn0r3`` as ``ignore``: words that mix letters and digits, with the digits read as the letters they look like."""
    mixed = re.compile(r"\b(?=\w*[a-z])(?=\w*\d)\w{4,}\b", re.I)
    return mixed.sub(lambda found: found.group().translate(str.maketrans("0134578", "oieastb")), text)


def _hidden(text: str) -> bool:
    for at, one in enumerate(text):
        if unicodedata.category(one) not in _INVISIBLE or one in "\t\n\r":
            continue
        if one in _JOINERS and 0 < at < len(text) - 1 and not (text[at - 1].isascii() or text[at + 1].isascii()):
            continue
        return True
    return False


def _mixed(text: str) -> bool:
    """Whether a word mixes letters of scripts that look alike."""
    for word in re.findall(r"\w+", text):
        scripts = {found.group(1) for one in word if one.isalpha() and (found := _SCRIPTS.match(unicodedata.name(one, "")))}
        if len(scripts) > 1:
            return True
    return False
