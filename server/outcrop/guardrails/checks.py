"""Check digits and other arithmetic by which numbers of a kind are known from any others."""

from __future__ import annotations

import ipaddress
import re

_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]")


def _compact(text: str) -> str:
    return _NOT_ALPHANUMERIC.sub("", text).upper()


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1, Annex B: cards and Canadian numbers."""
    digits = [int(each) for each in reversed(_compact(text))]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def card(text: str) -> bool:
    """A number of 13 to 19 digits that a card network may have given."""
    digits = _compact(text)
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and luhn(digits)


_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29,
    "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29,
    "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Characters by country (SWIFT's IBAN registry)."""


def iban(text: str) -> bool:
    """ISO 13616: the length of its country, and 1 modulo 97."""
    compact = _compact(text)
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(each, 36)) for each in compact[4:] + compact[:4])) % 97 == 1


def routing_number(text: str) -> bool:
    """ABA: a Federal Reserve prefix, and a sum of weights 3, 7 and 1 that ten divides."""
    digits = [int(each) for each in _compact(text)]
    prefix = digits[0] * 10 + digits[1]
    known = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    weights = (3, 7, 1) * 3
    return known and any(digits) and sum(map(int.__mul__, digits, weights)) % 10 == 0


def social_security_number(text: str) -> bool:
    """What the Social Security Administration gives: no area 000, 666 or 9xx, no group 00, no serial 0000."""
    digits = _compact(text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def health_service_number(text: str) -> bool:
    """The NHS number's check digit, modulo 11."""
    digits = [int(each) for each in _compact(text)]
    check = 11 - sum(map(int.__mul__, digits, range(10, 1, -1))) % 11
    return any(digits) and check % 11 == digits[9] and check != 10


def taxpayer_reference(text: str) -> bool:
    """The UTR's first digit checks the nine others, modulo 11."""
    digits = [int(each) for each in _compact(text)]
    total = sum(map(int.__mul__, digits[1:], (6, 7, 8, 9, 10, 5, 4, 3, 2)))
    return any(digits) and int("21987654321"[total % 11]) == digits[0]


_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def vehicle_number(text: str) -> bool:
    """ISO 3779's 17 characters, with the check digit of North America (49 CFR 565.15)."""
    vin = _compact(text)
    values = (int(_VIN_VALUES.get(each, each)) for each in vin)
    check = sum(map(int.__mul__, values, _VIN_WEIGHTS)) % 11
    return vin[8] == ("X" if check == 10 else str(check))


def secret_key(text: str) -> bool:
    """Forty characters of base64 that look drawn at random, as no word, path or hash does."""
    kinds = (str.islower, str.isupper, str.isdigit)
    return all(any(kind(each) for each in text) for kind in kinds) and len(set(text)) >= 18


def ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def british_phone_number(text: str) -> bool:
    """Ofcom's numbering plan: ten or eleven digits, the first zero among them."""
    return len(_compact(text)) in (10, 11)


def phone_number(text: str) -> bool:
    """E.164 allows 15 digits; fewer than 7 are no number that can be called from elsewhere."""
    return 7 <= len(_compact(text)) <= 15
