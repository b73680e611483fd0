"""Who is admitted, with reserved places and without."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from outcrop.api.admission import Admission
from outcrop.api.error_kind import Kind
from outcrop.api.errors import ApiError
from outcrop.catalog.reservation import Reservation


def refused(admission: Admission, reservation: Reservation | None = None) -> Kind:
    with pytest.raises(ApiError) as error:
        admission.check(reservation)
    return error.value.kind


def test_others_leave_reserved_places_free() -> None:
    own = Reservation(2)
    admission = Admission(5, reserved=lambda: own.units)
    with ExitStack() as held:
        assert [held.enter_context(admission.slot()) for _ in range(3)] == [False] * 3
        assert refused(admission) is Kind.THROTTLING
        assert [held.enter_context(admission.slot(own)) for _ in range(2)] == [True] * 2
        assert refused(admission, own) is Kind.THROTTLING
        assert (admission.inflight, own.in_use) == (5, 2)
    assert (admission.inflight, own.in_use) == (0, 0)


def test_beyond_its_places_a_reservation_is_like_others() -> None:
    own = Reservation(1)
    admission = Admission(3, reserved=lambda: own.units)
    with admission.slot(own) as first, admission.slot(own) as second, admission.slot() as third:
        assert [first, second, third] == [True, False, False]
        assert refused(admission) is refused(admission, own) is Kind.THROTTLING


def test_reservations_do_not_share() -> None:
    one, other = Reservation(1), Reservation(1)
    admission = Admission(2, reserved=lambda: 2)
    with admission.slot(one), admission.slot(other):
        assert refused(admission, one) is Kind.THROTTLING
        assert refused(admission) is Kind.THROTTLING


def test_draining_is_for_all() -> None:
    admission = Admission(2)
    admission.drain()
    assert refused(admission, Reservation(1)) is Kind.SERVICE_UNAVAILABLE
