"""
The words that a narrative may use: those that state no fact of their own, and families of words that mean the same.

A word of a family is allowed where the evidence uses any word of it; a general word always; any other word only where the
evidence has it. A word that is none of these says something that nobody has shown.
"""

from functools import lru_cache
from typing import Final

from explain.language import stem, words

# words that say nothing alone
_EMPTY: Final = """
a an the this that these those it its itself they them their there here each both all every any such one ones
and or but nor so yet while whereas although though however if than then thus also too as well both either only just even still
of in on at to for from by with within into among per via on upon during
is are was were be been being has have had having do does did can could
which who whom whose what when where why how not no never none neither nothing n't don't doesn't didn't isn't wasn't weren't hasn't haven't hadn't it's that's
fact facts reason reasons factor factors signal signals feature features point points item items detail details
transaction transactions payment payments purchase purchases
happened happens occurred occurs took take takes place taken made comes came stands
including included counting counted said says namely overall together specifically meaning means concerns regarding
some many several over through across between
utc flag flagged flagging alert addition terms out way turns turned
"""
_GENERAL: Final = """
a an the this that these those it its itself they them their there here each both all every any such same other another own one ones
and or but nor so yet while whereas although though however if than then thus also too as well both either only just even still
of in on at to for from by with within into over under about around between among across per via off out up down upon than since
during before after prior preceding previous earlier past last latest recent recently next following now once already ago
is are was were be been being am has have had having do does did done will would can could may might
which who whom whose what when where why how
not no never none neither without nothing cannot n't don't doesn't didn't isn't wasn't weren't hasn't haven't hadn't it's that's
very quite rather fairly somewhat far much more most less least many few several some almost nearly roughly approximately
exactly precisely slightly clearly noticeably notably markedly considerably substantially significantly strongly strong moderately
overall together alone further furthermore additionally moreover meanwhile instead namely respectively specifically
fact facts finding findings reason reasons factor factors signal signals sign indicator indicators driver drivers evidence argument
arguments point points contribution contributions contributor contributors feature features aspect note noted element detail
strongest main top biggest largest leading primary weakest smallest single individual important significant first second third fourth
fifth sixth seventh dominant chief principal greatest influential heaviest minor key contributing
speaks speak speaking spoke counts count counting counted argues argue weighs weigh points pointing leans lean pushes push pushing pulls pull
raises raise raising raised increases increase increasing increased adds add adding added lowers lower lowering reduces reduce
reducing lifts lift drives drive driving elevates elevate boosts boost heightens strengthens strengthen supports support supporting
suggests suggest suggesting indicates indicate indicating contributes contribute feeds eases ease weakens softens tempers offsets
mitigates dampens cuts decreases decrease favour favor favours favors against towards toward suspicion suspicious suspicions risk
risky concern concerns concerning alarm alert alerts reassuring earliest oldest newest reassures reassurance legitimacy
shows show showing shown sees see seen saw stands stand standing stood lies lie lay comes come came makes make made making gives give given
puts put placing places placed place sets set is reads remains remain remained takes take took taken reached reach reaches gets got
happened happen occurs occurred occur occurring took place recorded record records listed looks look looked
appears appear appeared found find observed observe observes known according describes describing brings brought means mean
compared compare comparison comparing contrast against versus matches matching corresponds equals equal equivalent
card cardholder customer cards transaction transactions payment payments purchase purchases charge charges charged activity
model score scored scoring system time times total number figure level value values rate share proportion portion part percentage
above below higher lower larger bigger smaller fewer greater exceeds exceed exceeding exceeded beyond short outside inside range
well way twice double triple half fold ratio multiple usual usually normal normally typical typically average averages regular habit
habits usually ordinary customary norm baseline expected unusual unusually different differs differ differing difference
utc am pm date day days hour hours minute minutes second seconds week weeks month months period window span timeframe course
flag flagged flagging
includes including included counting considering regarding concerning terms context
attempt attempted processed made initiated carried conducted involved involving involves made executed submitted performed placed
fraud fraudulent legitimate genuine honest probability likelihood chance
falls fall fell stays stay stayed stands turned turns turn passed passes pass went goes go going ranks rank ranked ranking
everything anything something whole entire entirety entirely fully full wholly generally general particular
data field fields information info value channel outcome outcomes result status
high low large small tall higher highest lowest upwards downwards upward downward back forward apart
separates separate separated requires require required implies implied imply telling told tells tell talks talk
heavily heavy lightly light weight weighs weighed carries carry carried bears bear belongs belong exists exist holds hold held
presence absence despite given notwithstanding regardless hence therefore accordingly consequently
altogether combined combine jointly collectively sum summed
divided divide breaks break down consist consists comprises comprise makes up
fits fit risen
slower quicker quick slow faster rapid rapidly busy busier quiet quieter calm calmer active inactive
spreads spread spreading distributed distribution concentrated across
satisfies satisfy satisfied meets meet met fulfils fulfilled
like alike unlike likewise similarly same
addition additional besides include
occasion occasions instance instances event events item items list lists row
side direction
come along aside around total totals totalled totaling totalling tally
best worst better worse strong weak weaker stronger strongly weakly modest modestly mild mildly marked sharp sharply steep steeply
ahead behind beneath beside between beyond
worth sits sit sat rests rest based basis base bases
puts into effect effects impact impacts influence influences
currently present presently here elsewhere
read reading readings states state stated states says say saying
mentions mention mentioned reported shares shared
indeed actually fact effectively practically virtually essentially
expects belongs counts
yields yield gives produce produced produces generate generated
figure figures
span spans spanning covers cover covering lasting lasted runs run ran
criteria criterion encountered encounters encounter qualifies qualify qualified surpasses surpassed surpass incomplete complete completely dated date dates
received receives receive statistically frequency frequent frequently accumulated accumulates accumulate cumulative represented represents represent
through began begins begin begun starts started hypothesis clock measured measures measure seems seem seemed needed needs need
factor multiplied majority bulk remainder remaining rest exact precise mere merely simply
estimated estimates tagged marked assigned attributed 
triggered triggers trigger alongside accompanied accompanies involving
euro euros dollars pounds elapsed clearest else hit hits gone foremost classed classified labelled pointer fulfilled off viewed view contains contained contain forms form formed affected affects affect suspecting suspect rise rises common commonly
ones thing things kind type way behind because due owing given result results resulting reflect reflects reflecting
question treats treated treat regarded regards interpreted interprets deemed climbed climbs climbing rising grows grow grew
background perspective grounds ground weightiest weighty processed processes registered registers logged volume handled handles
surge surged reveals revealed reveal ultimately consulted opposed attracts attracted attract relieves relieved burdened burdens
comfort comforting troubling worry worrying beforehand circumstance circumstances questionable mitigating exonerating wary
caution cautious credibility credible element degree constituted constitutes constitute completed extent relation drifted
conceivable plausible calculated calculates examination distrust attenuates attenuate intensifies intensify acts act works work
declines detracts detract diminishes diminish positioned position sign signs tendency pattern noteworthy notable remarkable
striking apparent evident evidently visible noticeable clear plain straightforward worth mentioning stretch moment once since
until throughout spell interval respect regard matter fairly relatively comparatively slight slightly magnitude quantity amounts
counted tallied tally occurrence occurrences weighing overall side favourable unfavourable positive negative heightened elevated
reduced raised lowered lessened softened nevertheless confined cause keeping keep tilts tilt powerful help helps bolsters
bolster sharpens sharpen reduction
"""
# a family of words that mean the same here; the first names it
_FAMILIES: Final = """
merchant shop store retailer seller vendor outlet payee business
device phone
country countries
new unfamiliar unknown unseen unrecognised unrecognized first never strange newly
used use using uses usage seen appeared known familiar recognised recognized visited before previously history
paid pay paying pays payments paid spent spend spending spends bought buy shopped shopping deal dealt transacted visited purchased visit
merchant_paid used merchant customer
amount amounts sum value price size ticket spend spending spent cost
online internet web e-commerce ecommerce remote remotely digital
present presented in-person person physically face terminal physical chip
night overnight nighttime nocturnal late
weekend
working workday weekday weekdays business
fraud fraudulent fraudulently frauds
legitimate genuine honest legitimately innocent
probability likelihood chance odds probable likely estimated estimates estimate estimating calibrated assesses assessed assesses puts rated
threshold cutoff cut-off limit starts begins review reviewed starting begin start line mark
similar closest nearest alike comparable resembling resembles resemble close akin neighbours neighbors matches past-cases
closed past resolved worked concluded settled ended investigated closing earlier historical completed finished
calibration calibrated historical history past
mean average averaged averages averaging
highest largest maximum max peak biggest greatest most top
reported reports report reporting known confirmed
known confirmed labelled identified recognised established
standard deviations deviation sigma distance away off
distance away apart far distant location place kilometres kilometers km distance gap
speed travel travelling traveling journey trip moving movement getting get pace
place location spot point position site
category kind type categories
training trained train learned learning learnt
unlike different unusual novel new dissimilar atypical nothing
rule rules holds hold fired fires matched matches applies apply triggered triggers condition hit met
given provided supplied missing absent available lacking lacks lack specified stated present included
small low tiny little minor
burst activity pace rate tempo intensity frequency busy
transactions transaction purchases payments purchase payment charge charges
time gap interval elapsed passed earlier since later after lag following
hour hours hourly
rate share proportion percentage fraction portion
smoothed smoothing
earlier previous prior past before history preceding recorded
known record recorded exists available visible history
different distinct separate unique various
working business ordinary normal
daytime day daylight
unusual atypical abnormal uncharacteristic out-of-pattern odd
night dark
different other
visited visit
said stated
unavailable unable available could
sent passed routed forwarded referred
by-hand manually hand
similarity similarly score
hours clock o'clock
three few
report reports reported reporting complaints
mcc category
device phone
fraud defrauded
last latest recent
normal usual typical median
"""

# what may be said of an item beyond the families of its own words, by the end of its code
_MORE: Final = {
    "CHANNEL": "point sale terminal online card present merchant shop store internet person remote",
    "NEW_MERCHANT": "already earlier previously use record same still new known familiar before paid used first",
    "NEW_COUNTRY": "already earlier previously use record same still new known familiar before used first",
    "NEW_DEVICE": "already earlier previously use record same still new known familiar before used first",
    "NIGHT": "fall falls used measured going terms hours outside went through night day working hours",
    "WEEKEND": "fall falls used fell weekend working week weekday day",
    "TIMELINE": "attributed paid spent charged amount sum total review country place channel online card present earlier location currency",
    "NOVEL": "novelty profile material unfamiliar during falls fall outside features presented complete counterpart found nowhere entirety everything looks look encountered contains contained viewed occurred considered overall features whole pattern combination like nothing resemble resembles resembling similar different novel new seen known data set examples example model trained",
    "MISSING_FIELDS": "remain remains along everything arrived unknown delivered accompany accompanied following details incomplete came without lacks supplied provided specified absent value values information data fields field record missing",
    "SIMILAR_CASES": "history offers namely exception precedents precedent established cleared most mixed classed classified labelled found ended resolved majority confirmed proved proven minority split splits case cases outcome comparable",
    "SIMILAR_CASE": "verdict precedent file investigation degree classed classified labelled found turned out proved resembles comparable past confirmed case cases similar comparable outcome",
    "SCORE_REVIEW": "translates experience assigned begins beginning alike qualifies sent goes going review threshold mark above",
    "SCORE_DECLINE": "qualifies review threshold mark above declined",
    "RULE": "shows instance known check true fulfilled fulfils matched criteria triggered satisfied satisfies meets hit recorded named name called result rule rules condition conditions",
    "AMOUNT": "paid pay payment spent charged price cost",
    "AMOUNT_TO_NORMAL": "paid payment spends spent",
    "AMOUNT_TO_MEAN": "paid payment spends spent",
    "AMOUNT_TO_HIGHEST": "paid payment spent earlier previous",
    "NORMAL": "current looking finds ticket amount amounts figure volume habits record",
    "VELOCITY": "active busy",
    "WEEKDAY": "fell weekday day week",
    "TIME_OF_DAY": "showed time clock hour o'clock day",
    "SINCE_LAST": "time gap interval previous last earlier pause",
    "DISTANCE": "previous transaction kilometres far away location locations",
    "TRAVEL_SPEED": "previous transaction arrive arriving speed travel kilometres fast location locations",
}  # fmt: skip

# words of another meaning than those whose stem they share
_OTHERS: Final = frozenset(
    ("relative", "relatives", "evening", "evenings", "severe", "severely", "informed", "informs", "informing", "import", "imports",
     "imported", "importing", "suspect", "suspects", "states", "someone", "somebody", "everyone", "anyone")
)  # fmt: skip


def about(code: str) -> str:
    """The words that an item's code adds to those of its text."""
    return next((more for end, more in sorted(_MORE.items(), key=lambda one: -len(one[0])) if code.endswith(end)), "")


@lru_cache(maxsize=1)
def _empty() -> frozenset[str]:
    return frozenset(stem(word) for word in _EMPTY.split())


@lru_cache(maxsize=1)
def _general() -> frozenset[str]:
    return frozenset(stem(word) for word in _GENERAL.split())


@lru_cache(maxsize=1)
def _families() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, line in enumerate(_FAMILIES.strip().splitlines()):
        for word in line.split():
            found.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}


def is_general(word: str) -> bool:
    """Whether a word may stand beside a checked number, side, rank or comparison."""
    return len(word) == 1 or stem(word) in _general()


def is_empty(word: str) -> bool:
    """Whether a word says nothing alone."""
    return len(word) == 1 or stem(word) in _empty()


@lru_cache(maxsize=4096)
def licensed_by(text: str) -> tuple[frozenset[str], frozenset[int]]:
    """The stems of a text and the families they belong to."""
    stems = frozenset(stem(word) for word in words(text))
    families = _families()
    return stems, frozenset().union(*(families.get(one, frozenset()) for one in stems))


def unlicensed(text: str, evidence: list[str], more: str = "", strict: bool = False) -> list[str]:
    """
    The words of a text that neither the language at large nor the evidence allows.

    ``more`` are further words that are allowed, without their families; ``strict`` allows of the language at large only the words
    that say nothing alone.
    """
    known = [licensed_by(one) for one in evidence]
    said = set(words(" ".join(evidence)))
    stems = frozenset(stem(word) for word in words(more)).union(*(one for one, _ in known))
    families = frozenset[int]().union(*(two for _, two in known))
    own, free = _families(), is_empty if strict else is_general
    return [
        word
        for word in words(text)
        if (word in _OTHERS and word not in said)
        or (not free(word) and stem(word) not in stems and not own.get(stem(word), frozenset()) & families)
    ]
