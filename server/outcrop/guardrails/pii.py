"""Personal information by type: how each is known without a model.

A type is known by its form, where that is enough with a check digit or another rule, and else by its form
behind a label: a card's security code is three digits behind `CVV`, not any three digits. Names and addresses
have no form; they need a model, and there is none here (`WITHOUT_FORM`).

The types are those of Amazon Bedrock's API reference, GuardrailPiiEntityConfig, which also describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from outcrop.guardrails import checks
from outcrop.guardrails.filter import Filter, Hit
from outcrop.guardrails.pattern import Pattern

WITHOUT_FORM = ("ADDRESS", "NAME")

_NUMBER = r"(?:\s+(?i:number|no\.?|id|code|is))*[\s:.#=]{0,3}"
"""Between a label and what it labels."""


@dataclass(frozen=True, slots=True)
class Form:
    """regex: with a group `value` where only a part of the match is the information. check: whether a text of
    this form is the information."""

    regex: str
    check: Callable[[str], bool] | None = None


def _has_digit(text: str) -> bool:
    return any(each.isdigit() for each in text)


def _is_no_word(text: str) -> bool:
    return not text.isalpha()


def _is_insured(text: str) -> bool:
    """HMRC never gives these prefixes to anybody (NIM39110)."""
    return text[:2].upper() not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


FORMS: dict[str, tuple[Form, ...]] = {
    "AGE": (
        Form(r"\b(?P<value>\d{1,3}[ -](?i:years?|yrs?|months?))[ -](?i:old|of age)\b"),
        Form(r"(?i:\bage[d:]?|\bage is)\s+(?P<value>\d{1,3})\b"),
    ),
    "AWS_ACCESS_KEY": (Form(r"\b(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16}\b"),),
    "AWS_SECRET_KEY": (
        Form(r"(?:^|[^A-Za-z0-9/+])(?P<value>[A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)", checks.secret_key),
    ),
    "CA_HEALTH_NUMBER": (
        Form(r"\b\d{4}[ -]\d{3}[ -]\d{3}\b", checks.luhn),
        Form(rf"(?i:\bhealth\s+(?:card|insurance|service)){_NUMBER}(?P<value>\d{{10}})\b"),
    ),
    "CA_SOCIAL_INSURANCE_NUMBER": (Form(r"\b\d{3}[ -]\d{3}[ -]\d{3}\b", checks.luhn),),
    "CREDIT_DEBIT_CARD_CVV": (
        Form(
            rf"(?i:\b(?:cvv2?|cvc2?|cid|security\s+code|verification\s+code)){_NUMBER}(?P<value>\d{{3,4}})\b"
        ),
    ),
    "CREDIT_DEBIT_CARD_EXPIRY": (
        Form(
            r"(?i:\b(?:exp|expiry|expires|expiration|valid\s+(?:thru|through|until)))(?:\s+(?i:date|is|on|in))*"
            r"[\s:.]{0,3}(?P<value>(?:0?[1-9]|1[0-2])\s?[/-]\s?(?:20)?\d{2}"
            r"|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?\s+20\d{2})\b"
        ),
    ),
    "CREDIT_DEBIT_CARD_NUMBER": (
        Form(r"\b(?:\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}|\d{4}[ -]?\d{6}[ -]?\d{5}|\d{13,19})\b", checks.card),
    ),
    "DRIVER_ID": (
        Form(
            rf"(?i:\bdriver['’]?s?\s+licen[cs]e){_NUMBER}(?P<value>[A-Z0-9][A-Z0-9-]{{4,18}}[A-Z0-9])\b",
            _has_digit,
        ),
    ),
    "EMAIL": (Form(r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),),
    "INTERNATIONAL_BANK_ACCOUNT_NUMBER": (
        Form(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", checks.iban),
    ),
    "IP_ADDRESS": (
        Form(r"\b(?:\d{1,3}\.){3}\d{1,3}\b", checks.ip_address),
        Form(r"\b(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}\b", checks.ip_address),
    ),
    "LICENSE_PLATE": (
        Form(
            rf"(?i:\b(?:licen[cs]e|number|registration)\s+plate){_NUMBER}"
            r"(?P<value>[A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{1,4}){1,2})\b",
            _has_digit,
        ),
    ),
    "MAC_ADDRESS": (Form(r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b"),),
    "PASSWORD": (
        Form(r"(?i:\b(?:password|passwd|passphrase|pwd))\s*[:=]\s*(?P<value>[^\s,;]*[^\s,;.!?])"),
        Form(
            r"(?i:\b(?:password|passwd|passphrase|pwd))\s+(?i:is)\s+(?P<value>[^\s,;]*[^\s,;.!?])",
            _is_no_word,
        ),
    ),
    "PHONE": (
        Form(r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,5}\b", checks.phone_number),
        Form(r"(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b"),
        Form(r"\b0\d{2,4}[ -]\d{3,4}(?:[ -]?\d{3,4})?\b", checks.british_phone_number),
    ),
    "PIN": (Form(rf"(?i:\bpin){_NUMBER}(?P<value>\d{{4,6}})\b"),),
    "SWIFT_CODE": (
        Form(
            rf"(?i:\b(?:swift|bic)(?:[/ ](?:bic|swift))?){_NUMBER}"
            r"(?P<value>[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?)\b"
        ),
    ),
    "UK_NATIONAL_HEALTH_SERVICE_NUMBER": (
        Form(r"\b\d{3}[ -]?\d{3}[ -]?\d{4}\b", checks.health_service_number),
    ),
    "UK_NATIONAL_INSURANCE_NUMBER": (
        Form(r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D]\b", _is_insured),
    ),
    "UK_UNIQUE_TAXPAYER_REFERENCE_NUMBER": (
        Form(
            rf"(?i:\b(?:utr|taxpayer\s+reference|tax\s+reference)){_NUMBER}(?P<value>\d{{5}} ?\d{{5}})\b",
            checks.taxpayer_reference,
        ),
    ),
    "URL": (Form(r"""\b(?i:https?://|www\.)[^\s<>"']*[^\s<>"'.,;:!?)\]]"""),),
    "USERNAME": (
        Form(
            r"(?i:\b(?:user\s?name|user\s?id|screen\s+name|handle))(?:\s+(?i:is)\s+|\s*[:=]\s*)"
            r"(?P<value>@?[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9])"
        ),
    ),
    "US_BANK_ACCOUNT_NUMBER": (Form(rf"(?i:\b(?:account|acct)){_NUMBER}(?P<value>\d{{8,17}})\b"),),
    "US_BANK_ROUTING_NUMBER": (Form(r"\b\d{9}\b", checks.routing_number),),
    "US_INDIVIDUAL_TAX_IDENTIFICATION_NUMBER": (Form(r"\b9\d{2}[ -]?[78]\d[ -]?\d{4}\b"),),
    "US_PASSPORT_NUMBER": (Form(rf"(?i:\bpassport){_NUMBER}(?P<value>[A-Z0-9]?\d{{6,9}})\b"),),
    "US_SOCIAL_SECURITY_NUMBER": (
        Form(r"\b\d{3}[ -]\d{2}[ -]\d{4}\b", checks.social_security_number),
        Form(
            rf"(?i:\b(?:ssn|social\s+security)){_NUMBER}(?P<value>\d{{9}})\b", checks.social_security_number
        ),
    ),
    "VEHICLE_IDENTIFICATION_NUMBER": (Form(r"\b[A-HJ-NPR-Z0-9]{17}\b", checks.vehicle_number),),
}


@cache
def patterns(type_: str) -> tuple[tuple[Pattern, Callable[[str], bool] | None], ...]:
    """The forms of a type, compiled once."""
    return tuple((Pattern(form.regex), form.check) for form in FORMS[type_])


class PatternFinder:
    """Finds what a pattern matches, none overlapping."""

    def __init__(self, filter_: Filter, pattern: Pattern, check: Callable[[str], bool] | None = None) -> None:
        """check: which matches count."""
        self._filter = filter_
        self._pattern = pattern
        self._check = check

    def find(self, text: str, start: int, stop: int) -> Iterator[Hit]:
        while (found := self._pattern.search(text, start)) is not None and found[0] < stop:
            begin, end, value_begin, value_end = found
            if self._check is None or self._check(text[value_begin:value_end]):
                yield Hit(value_begin, value_end, end, self._filter)
                start = end
            else:
                start = begin + 1  # another may begin within it
