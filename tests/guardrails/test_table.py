"""Texts, policies, and what comes of them: blocked, masked, reported or let be; however the text is cut."""

from __future__ import annotations

import pytest

from .policies import BLOCKED, POLICIES, outcome

TABLE: list[tuple[str, str, str, list[str]]] = [
    # policy, text, what comes out, what is found
    ("words", "This is forbidden here", f"This is {BLOCKED}", ["forbidden"]),
    ("words", "This is FORBIDDEN", f"This is {BLOCKED}", ["FORBIDDEN"]),
    ("words", "unforbidden, forbiddenly", "unforbidden, forbiddenly", []),
    ("words", "two\n words here", BLOCKED, ["two\n words"]),
    ("words", "two other words", "two other words", []),
    ("words", "I like C++, not C+", f"I like {BLOCKED}", ["C++"]),
    ("words", "I like C+ and C", "I like C+ and C", []),
    ("words", "a Naïve idea", f"a {BLOCKED}", ["Naïve"]),
    ("words", "", "", []),
    ("reported words", "a forbidden word", "a forbidden word", ["forbidden"]),
    ("profanity", "what an asshole", f"what an {BLOCKED}", ["asshole"]),
    ("profanity", "a class in Scunthorpe", "a class in Scunthorpe", []),
    ("topic", "Is it raining? What stocks are worth my money now? Yes.",
     f"Is it raining? What {BLOCKED}", ["stocks are worth my money"]),
    ("topic", "I want investment advice", f"I want {BLOCKED}", ["investment advice"]),
    ("topic", "Where do people invest their savings", f"Where do people {BLOCKED}", ["invest their savings"]),
    ("topic", "My savings are gone. They invested in me.", "My savings are gone. They invested in me.", []),
    ("topic", "Money is not all", "Money is not all", []),
    ("block email", "Write to joe@example.com now", f"Write to {BLOCKED}", ["joe@example.com"]),
    ("block email", "Write to joe at example dot com", "Write to joe at example dot com", []),
    ("report phone", "Call (555) 123-4567 now", "Call (555) 123-4567 now", ["(555) 123-4567"]),
    ("regex", "Order ID-12345 is late", "Order {id} is late", ["ID-12345"]),
    ("regex", "Order ID-123 is late", "Order ID-123 is late", []),
    ("regex", "ID-1234 ID-5678", "{id} {id}", ["ID-1234", "ID-5678"]),
    ("block regex", "The Secret \n Project starts", f"The {BLOCKED}", ["Secret \n Project"]),
    ("block regex", "The secret of the project", "The secret of the project", []),
    ("several", "joe@a.example.com and x", "{EMAIL} and x", ["joe@a.example.com", "a.example.com"]),
    ("several", "b.example.com at 10.0.0.1!", f"{{host}} at {BLOCKED}", ["b.example.com", "10.0.0.1"]),
    ("several", "joe@b.example.com: forbidden", f"{{EMAIL}}: {BLOCKED}",
     ["joe@b.example.com", "b.example.com", "forbidden"]),
    ("several", "10.0.0.300 is no address", "10.0.0.300 is no address", []),
    ("several", "Invest savings? joe@example.org", BLOCKED, ["Invest savings"]),
    ("mask all", "I am 40 years old", "I am {AGE} old", ["40 years"]),
    ("mask all", "AKIAIOSFODNN7EXAMPLE", "{AWS_ACCESS_KEY}", ["AKIAIOSFODNN7EXAMPLE"]),
    ("mask all", "key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "key {AWS_SECRET_KEY}",
     ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"]),
    ("mask all", "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
     "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709", []),
    ("mask all", "My health card number is 9876543217", "My health card number is {CA_HEALTH_NUMBER}",
     ["9876543217"]),
    ("mask all", "SIN 046-454-286", "SIN {CA_SOCIAL_INSURANCE_NUMBER}", ["046-454-286"]),
    ("mask all", "SIN 046-454-287", "SIN 046-454-287", []),
    ("mask all", "CVV: 123", "CVV: {CREDIT_DEBIT_CARD_CVV}", ["123"]),
    ("mask all", "page 123", "page 123", []),
    ("mask all", "expires 12/27", "expires {CREDIT_DEBIT_CARD_EXPIRY}", ["12/27"]),
    ("mask all", "card 4111 1111 1111 1111.", "card {CREDIT_DEBIT_CARD_NUMBER}.", ["4111 1111 1111 1111"]),
    ("mask all", "card 4111 1111 1111 1112.", "card 4111 1111 1111 1112.", []),
    ("mask all", "driver's license number D1234567", "driver's license number {DRIVER_ID}", ["D1234567"]),
    ("mask all", "GB82 WEST 1234 5698 7654 32", "{INTERNATIONAL_BANK_ACCOUNT_NUMBER}",
     ["GB82 WEST 1234 5698 7654 32"]),
    ("mask all", "GB82 WEST 1234 5698 7654 33", "GB82 WEST 1234 5698 7654 33", []),
    ("mask all", "at 198.51.100.0 and 2001:db8::1", "at {IP_ADDRESS} and {IP_ADDRESS}",
     ["198.51.100.0", "2001:db8::1"]),
    ("mask all", "at 10:20:30", "at 10:20:30", []),
    ("mask all", "license plate ABC 123", "license plate {LICENSE_PLATE}", ["ABC 123"]),
    ("mask all", "00:1A:2b:3c:4d:5e", "{MAC_ADDRESS}", ["00:1A:2b:3c:4d:5e"]),
    ("mask all", "password: hunter2!", "password: {PASSWORD}!", ["hunter2"]),
    ("mask all", "The password is required", "The password is required", []),
    ("mask all", "call +44 20 7946 0958 now", "call {PHONE} now", ["+44 20 7946 0958"]),
    ("mask all", "My PIN is 1234", "My PIN is {PIN}", ["1234"]),
    ("mask all", "SWIFT: DEUTDEFF500", "SWIFT: {SWIFT_CODE}", ["DEUTDEFF500"]),
    ("mask all", "NHS 9434765919", "NHS {UK_NATIONAL_HEALTH_SERVICE_NUMBER}", ["9434765919"]),
    ("mask all", "NINO AB 12 34 56 C", "NINO {UK_NATIONAL_INSURANCE_NUMBER}", ["AB 12 34 56 C"]),
    ("mask all", "NINO GB123456A", "NINO GB123456A", []),
    ("mask all", "UTR 1955839661", "UTR {UK_UNIQUE_TAXPAYER_REFERENCE_NUMBER}", ["1955839661"]),
    ("mask all", "see https://example.com/a?b=c.", "see {URL}.", ["https://example.com/a?b=c"]),
    ("mask all", "user name: joe_x", "user name: {USERNAME}", ["joe_x"]),
    ("mask all", "account number 12345678", "account number {US_BANK_ACCOUNT_NUMBER}", ["12345678"]),
    ("mask all", "routing 021000021", "routing {US_BANK_ROUTING_NUMBER}", ["021000021"]),
    ("mask all", "routing 021000022", "routing 021000022", []),
    ("mask all", "ITIN 912-70-1234", "ITIN {US_INDIVIDUAL_TAX_IDENTIFICATION_NUMBER}", ["912-70-1234"]),
    ("mask all", "passport no. 123456789", "passport no. {US_PASSPORT_NUMBER}", ["123456789"]),
    ("mask all", "SSN 123-45-6789", "SSN {US_SOCIAL_SECURITY_NUMBER}", ["123-45-6789"]),
    ("mask all", "SSN 666-45-6789", "SSN 666-45-6789", []),
    ("mask all", "VIN 1M8GDM9AXKP042788", "VIN {VEHICLE_IDENTIFICATION_NUMBER}", ["1M8GDM9AXKP042788"]),
    ("mask all", "VIN 1M8GDM9A1KP042788", "VIN 1M8GDM9A1KP042788", []),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "text", "out", "found"), TABLE)
def test_what_comes_of_a_text(policy: str, text: str, out: str, found: list[str]) -> None:
    filters = POLICIES[policy]
    whole = outcome(filters, text)
    assert whole[0] == out
    assert [match for _, _, match in whole[1]] == found
    for cuts in (range(len(text)), range(0, len(text), 3)):
        assert outcome(filters, text, cuts) == whole
