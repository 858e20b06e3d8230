"""
Find card numbers, e-mail addresses and US social security numbers in text, in one linear pass.

Each character is first mapped to a class, such as digit (by its NFKC form), separator, invisible character or letter.
Full-width digits, no-break spaces and zero-width characters between digits therefore cannot hide a number. The pass is
compiled, because an attacker may send text that is meant to be slow to scan.
"""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

Codes = npt.NDArray[np.uint8]
Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]

# Classes 0 to 9 are digits. Class ``_TWO_DIGITS`` + n is a single character whose NFKC form is the two-digit number n, such
# as "⑫".
_LETTER, _SEPARATOR, _INVISIBLE, _AT, _DOT, _MAIL_SIGN, _TWO_DIGITS = 10, 11, 12, 13, 14, 15, 20
_TABLE_SIZE = 0x20000  # the table covers these code points; later ones are letters (ideographs), or invisible from ``_TAGS`` on
_TAGS = 0xE0000
_SHORTEST, _LONGEST = 12, 19  # digits of a card number, ISO/IEC 7812-1
_GAP = 4  # maximum number of visible separators between two digit groups of one number
_DOMAIN = 255  # longest domain of an e-mail address, RFC 5321


# Indexed by kind of span: card number (the last four digits and a closing bracket are appended), e-mail address, social security
# number, overlapping spans.
_MASK_TEXTS = (b"[card ending ", b"[e-mail address]", b"[social security number]", b"[masked]")
_MASK_LENGTHS = np.array([len(text) for text in _MASK_TEXTS], np.int64)
_MASKS = np.array([list(text.ljust(24)) for text in _MASK_TEXTS], np.uint8)


def _luhn_sums() -> npt.NDArray[np.uint8]:
    """
    Return a table of Luhn sums, uint8 [2, 160, 10]: ``table[parity, pair, digit]`` is the pair of sums after adding ``digit`` to
    ``pair``, where ``parity`` is that of the digit's position.

    A pair packs two sums modulo 10: the lower four bits for numbers whose last digit is at an even position, the upper four
    for odd.
    """
    table = np.zeros((2, 160, 10), np.uint8)
    for parity in (0, 1):
        for even in range(10):
            for odd in range(10):
                for digit in range(10):
                    doubled = sum(divmod(2 * digit, 10))
                    sums = (even + digit, odd + doubled) if parity == 0 else (even + doubled, odd + digit)
                    table[parity, odd << 4 | even, digit] = sums[1] % 10 << 4 | sums[0] % 10
    return table


_LUHN_SUMS = _luhn_sums()
_NO_END = np.uint8(0xFF)  # marks a position where no group ends; differs from every pair of Luhn sums
# Masks that select the relevant half of each pair, indexed by the parity of the first digit's position. Each byte stands for one
# length of a number; the lowest byte stands for 12 digits.
_LUHN_HALVES = np.array([0x0FF00FF00FF00FF0, 0xF00FF00FF00FF00F], np.uint64)
_EACH_BYTE, _LOW_BITS, _GATHER = np.uint64(0x0101010101010101), np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x0102040810204080)
_ONE_BYTE, _SEVEN_BYTES, _SEVEN = np.uint64(8), np.uint64(56), np.uint64(7)
_HIGHEST_BIT = np.array([max(0, bits.bit_length() - 1) for bits in range(256)], np.int64)


def _class_of(character: str) -> int:
    category = unicodedata.category(character)
    if category[0] == "L":
        return _LETTER
    if category in ("Cn", "Co"):  # unassigned or private use: neither a digit nor a letter
        return _SEPARATOR
    if category in ("Mn", "Me", "Cf", "Cs") or (category == "Cc" and not character.isspace()):
        return _INVISIBLE
    plain = unicodedata.normalize("NFKC", character)
    digits = "".join(str(unicodedata.decimal(one)) for one in plain if unicodedata.decimal(one, None) is not None)
    if digits and len(digits) <= 2 and not any(one.isalpha() for one in plain):
        return int(digits) if len(digits) == 1 else _TWO_DIGITS + int(digits)
    if any(one.isalnum() for one in plain):
        return _LETTER
    signs = {"@": _AT, ".": _DOT, "-": _MAIL_SIGN, "_": _MAIL_SIGN, "+": _MAIL_SIGN, "%": _MAIL_SIGN}
    return signs.get(plain, _SEPARATOR)


_ASCII: Codes = np.array([_class_of(chr(code)) for code in range(128)] + [_LETTER] * 128, np.uint8)


@cache
def _table() -> Codes:
    return np.array([_class_of(chr(code)) for code in range(_TABLE_SIZE)], np.uint8)


def _codes(text: str) -> Codes:
    """Return the class of each character, uint8 [len(text)]."""
    if text.isascii():
        ascii_codes: Codes = _ASCII[np.frombuffer(text.encode("ascii"), np.uint8)]
        return ascii_codes
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    codes: Codes = _table()[np.minimum(points, _TABLE_SIZE - 1)]
    codes[points >= _TABLE_SIZE] = _LETTER
    codes[points >= _TAGS] = _INVISIBLE
    return codes


@njit(cache=True, nogil=True, inline="always")
def _is_ipv4(codes, starts, ends, group):  # type: ignore[no-untyped-def]
    """Return whether the four groups from ``group`` on are an IPv4 address written with three digits per group."""
    for one in range(group, group + 4):
        if ends[one] - starts[one] != 3:
            return False
        value = 0
        for at in range(starts[one], ends[one]):
            if codes[at] > 9:
                return False
            value = 10 * value + codes[at]
        if value > 255 or (one < group + 3 and (starts[one + 1] - ends[one] != 1 or codes[ends[one]] != _DOT)):
            return False
    return True


@njit(cache=True, nogil=True, inline="always")
def _lengths(window, sums, half):  # type: ignore[no-untyped-def]
    """Return the lengths at which a number passes the Luhn check, as bits (bit 0: 12 digits). Compares eight lengths at once."""
    differing = (window ^ np.uint64(sums) * _EACH_BYTE) & half
    equal = ~((differing & _LOW_BITS) + _LOW_BITS | differing | _LOW_BITS)  # 0x80 in each byte where ``differing`` is zero
    return np.int64((equal >> _SEVEN) * _GATHER >> _SEVEN_BYTES)


@njit(cache=True, nogil=True, inline="always")
def _all_zero(luhn, begin, end):  # type: ignore[no-untyped-def]
    for digit in range(begin, end):  # noqa: SIM110 -- numba compiles loops better than generators
        if luhn[digit + 1] != luhn[digit]:
            return False
    return True


@njit(cache=True, nogil=True, inline="always")
def _add(found, count, begin, end, kind, ending):  # type: ignore[no-untyped-def]
    """Insert a span into ``found``, which is sorted by the spans' start; return its index."""
    at = count
    while at > 0 and found[at - 1, 0] > begin:
        found[at] = found[at - 1]
        at -= 1
    found[at, 0], found[at, 1], found[at, 2], found[at, 3] = begin, end, kind, ending
    return at


@njit(cache=True, nogil=True)
def _scan(codes, begin, end, most, starts, ends, firsts, luhn, luhn_ends, groups_at, found):  # type: ignore[no-untyped-def]
    """
    Find sensitive spans in ``codes[begin:end]`` and stop after ``most`` spans. Return the number of spans found.

    A number consists of whole digit groups, with at most ``_GAP`` visible separators between two groups. The other arrays are
    scratch space. ``luhn`` holds the pair of Luhn sums (``_luhn_sums``) before each digit. ``luhn_ends`` holds the same pair
    where a group ends, and ``_NO_END`` elsewhere; ``groups_at`` holds the number of groups up to that end. ``starts`` and
    ``ends`` hold the start of each group and the position after its end; ``firsts`` holds the index of its first digit.
    """
    count = n_groups = n_digits = gap = 0
    word = begin  # where the local part of an e-mail address would begin
    inside = False  # within a digit group
    at = begin
    luhn[0] = 0
    while at <= end:
        code = codes[at] if at < end else np.uint8(_LETTER)
        if code < 10 or code >= _TWO_DIGITS:
            if not inside:
                starts[n_groups], firsts[n_groups] = at, n_digits
                inside, gap = True, 0
            value = np.int64(code)
            if value >= _TWO_DIGITS:
                luhn[n_digits + 1] = _LUHN_SUMS[n_digits & 1, luhn[n_digits], (value - _TWO_DIGITS) // 10]
                n_digits += 1
                luhn_ends[n_digits] = _NO_END
                value = (value - _TWO_DIGITS) % 10
            luhn[n_digits + 1] = _LUHN_SUMS[n_digits & 1, luhn[n_digits], value]
            n_digits += 1
            luhn_ends[n_digits] = _NO_END
            at += 1
            continue
        if inside:
            ends[n_groups] = at
            n_groups += 1
            luhn_ends[n_digits], groups_at[n_digits] = luhn[n_digits], n_groups
            inside = False
        if code == _AT and at > word:
            stop, dot = at + 1, -1
            while (
                stop < end
                and stop - at <= _DOMAIN
                and (codes[stop] <= _LETTER or codes[stop] == _DOT or codes[stop] == _MAIL_SIGN)
            ):
                if codes[stop] == _DOT and stop > at + 1 and stop + 1 < end and codes[stop + 1] == _LETTER:
                    dot = stop
                stop += 1
            if dot > 0:
                _add(found, count, word, stop, 1, 0)
                count += 1
                if count == most:
                    return count
        if code != _LETTER and code != _DOT and code != _MAIL_SIGN:
            word = at + 1
        if code != _INVISIBLE:
            gap += 1
        if (code == _LETTER or gap > _GAP) and n_groups > 0:  # no number continues past this point
            firsts[n_groups] = n_digits
            luhn_ends[n_digits + 1 : n_digits + _LONGEST + 1] = _NO_END
            group = first = 0
            window = np.uint64(0)  # ``luhn_ends`` at the eight possible ends of a number that starts at ``first``
            for digits in range(_LONGEST, _SHORTEST - 1, -1):
                window = window << _ONE_BYTE | np.uint64(luhn_ends[digits])
            before = -1  # index of the last span in this run of groups
            while group < n_groups:
                last = -1
                while first < firsts[group]:
                    first += 1
                    window = window >> _ONE_BYTE | np.uint64(luhn_ends[first + _LONGEST]) << _SEVEN_BYTES
                lengths = _lengths(window, luhn[first], _LUHN_HALVES[first & 1])
                while lengths:
                    digits = _HIGHEST_BIT[lengths] + _SHORTEST
                    behind = groups_at[first + digits]
                    if _all_zero(luhn, first, first + digits) or (behind == group + 4 and _is_ipv4(codes, starts, ends, group)):
                        lengths ^= 1 << (digits - _SHORTEST)
                    else:
                        last = behind
                        break
                kind = 0
                if (
                    last < 0
                    and group + 3 <= n_groups
                    and (
                        ends[group] - starts[group] == 3
                        and ends[group + 1] - starts[group + 1] == 2
                        and ends[group + 2] - starts[group + 2] == 4
                        and starts[group + 1] - ends[group] == 1
                        and starts[group + 2] - ends[group + 1] == 1
                        and codes[ends[group]] == codes[ends[group + 1]]
                        and codes[ends[group]] != _DOT
                    )
                ):
                    last, kind = group + 3, 2
                if last < 0:
                    group += 1
                    continue
                # numbers may overlap ("20240006 4111 1111 1111 1111" contains two): mask all of them
                if before >= 0 and starts[group] < found[before, 1]:
                    if ends[last - 1] > found[before, 1]:
                        found[before, 1], found[before, 2] = ends[last - 1], 3
                else:
                    ending = np.int64(0)
                    for digit in range(firsts[last] - 4, firsts[last]):
                        bits = 4 * (digit & 1)
                        ending = 10 * ending + (np.int64(luhn[digit + 1] >> bits & 15) - np.int64(luhn[digit] >> bits & 15)) % 10
                    before = _add(found, count, starts[group], ends[last - 1], kind, ending)
                    count += 1
                    if count == most:
                        return count
                group += 1
            n_groups = n_digits = 0
        at += 1
    return count


@njit(cache=True, nogil=True)
def _flag_rows(codes, offsets, longest, flags):  # type: ignore[no-untyped-def]
    groups = longest // 2 + 3  # at most every second character begins a group
    starts, ends, firsts = np.empty(groups, np.int32), np.empty(groups, np.int32), np.empty(groups, np.int32)
    luhn, luhn_ends = np.empty(2 * longest + 2, np.uint8), np.empty(2 * longest + 2 + _LONGEST, np.uint8)
    groups_at, found = np.empty(2 * longest + 2, np.int32), np.empty((1, 4), np.int64)
    for row in range(len(offsets) - 1):
        flags[row] = _scan(codes, offsets[row], offsets[row + 1], 1, starts, ends, firsts, luhn, luhn_ends, groups_at, found) > 0


@njit(cache=True, nogil=True)
def _find_all(codes, found):  # type: ignore[no-untyped-def]
    n = len(codes)
    groups = n // 2 + 3
    starts, ends, firsts = np.empty(groups, np.int32), np.empty(groups, np.int32), np.empty(groups, np.int32)
    luhn, luhn_ends = np.empty(2 * n + 2, np.uint8), np.empty(2 * n + 2 + _LONGEST, np.uint8)
    groups_at = np.empty(2 * n + 2, np.int32)
    return _scan(codes, 0, n, len(found), starts, ends, firsts, luhn, luhn_ends, groups_at, found)


@njit(cache=True, nogil=True)
def _rewrite(points, found, count, masks, lengths, out):  # type: ignore[no-untyped-def]
    """Copy ``points`` to ``out`` with every span replaced by the mask of its kind; return the length."""
    at = size = span = 0
    while span < count:
        begin, end, kind, ending = found[span]
        span += 1
        while span < count and found[span, 0] < end:
            if found[span, 1] > end:
                end, kind = found[span, 1], 3
            span += 1
        for place in range(at, begin):
            out[size] = points[place]
            size += 1
        for place in range(lengths[kind]):
            out[size] = masks[kind, place]
            size += 1
        if kind == 0:
            for power in (1000, 100, 10, 1):
                out[size] = 48 + ending // power % 10
                size += 1
            out[size] = 93
            size += 1
        at = end
    for place in range(at, len(points)):
        out[size] = points[place]
        size += 1
    return size


def holds_sensitive(text: str) -> bool:
    """Return whether a text contains a card number, an e-mail address or a social security number. Takes linear time."""
    return len(text) > 4 and bool(_find_all(_codes(text), np.empty((1, 4), np.int64)))


def mask(text: str) -> str:
    """
    Return a text with card numbers, e-mail addresses and social security numbers masked. Takes linear time.

    The last four digits of a card number stay visible.
    """
    if len(text) < 5:
        return text
    found = np.empty((len(text) // 4 + 1, 4), np.int64)
    count = _find_all(_codes(text), found)
    if count == 0:
        return text
    ascii_only = text.isascii()
    raw = text.encode("ascii") if ascii_only else text.encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(raw, np.uint8 if ascii_only else np.uint32)
    out = np.empty(len(points) + count * _MASKS.shape[1], points.dtype)
    kept = out[: _rewrite(points, found, count, _MASKS, _MASK_LENGTHS, out)].tobytes()
    return kept.decode("ascii") if ascii_only else kept.decode("utf-32-le", "surrogatepass")


def prepare() -> None:
    """Compile or load the kernels and tables, so that the first call does not wait for them."""
    for text in ("4111 1111 1111 1111", "\uff14\uff11\uff11\uff11 1111 1111 1111"):
        mask(text)


def flag_rows(data: Bytes, offsets: Int64s) -> npt.NDArray[np.bool_]:
    """Return which of n texts contain sensitive data, bool [n]. Text i is the ASCII bytes ``data[offsets[i]:offsets[i + 1]]``."""
    flags = np.zeros(len(offsets) - 1, np.bool_)
    if len(flags):
        _flag_rows(_ASCII[data], offsets, int(np.diff(offsets).max(initial=0)), flags)
    return flags
