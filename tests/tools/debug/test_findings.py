"""Which of what programs tell is the first, in whatever order it arrives."""

import itertools

import pytest

from weft.tools.debug import findings
from weft.tools.debug.checks import Number, Point, Site

IN, OUT, BACK_IN, BACK_OUT = itertools.starmap(Point, itertools.product([False, True], repeat=2))


def told(name, point, order, *, bad=1, loops=(), numbers=(), root=0, call=0, parent=None, inf=0):
    path = ("model", name, *map(Number, range(len(numbers))))
    at = (order, call, root, tuple(loops), path, parent, "Layer.__call__", ("x f32[2]",))
    return findings.Told(Site(point, *at), tuple(numbers), ((bad, inf),))


def first(*events, infinities=True):
    session = findings.Session(infinities)
    for event in events:
        session.note(event)
    error = session.error()
    return None if error is None else (error.path, error.phase)


def test_the_order_of_arrival_does_not_count():
    events = [told("a", OUT, 2), told("b", OUT, 3), told("c", OUT, 4)]
    for arrived in itertools.permutations(events):
        assert first(*arrived) == ("model.a", "forward")


def test_the_backward_pass_goes_the_other_way():
    events = [told("a", BACK_OUT, 2), told("b", BACK_OUT, 3), told("c", BACK_OUT, 4)]
    for arrived in itertools.permutations(events):
        assert first(*arrived) == ("model.c", "backward")


def test_iterations_come_before_places_in_a_body():
    loop = [(5, False)]
    one = told("a", OUT, 9, loops=loop, numbers=[1])
    two = told("b", OUT, 7, loops=loop, numbers=[2])
    before, after = told("first", OUT, 4), told("last", OUT, 20)
    for arrived in itertools.permutations([one, two, after]):
        assert first(*arrived) == ("model.a[1]", "forward")
    assert first(one, two, before) == ("model.first", "forward")
    backwards = [
        told(name, OUT, order, loops=[(5, True)], numbers=[number])
        for name, order, number in (("a", 9, 1), ("b", 7, 2))
    ]
    assert first(*backwards) == ("model.b[2]", "forward")


def test_what_goes_well_is_no_finding():
    assert first(told("a", OUT, 1, bad=0), told("b", BACK_OUT, 2, bad=0)) is None


def test_a_program_that_begins_again_is_not_looked_at():
    good = told("a", OUT, 1, bad=0)
    run = [good, told("b", OUT, 2), told("c", OUT, 3)]
    again = [told("a", OUT, 1), told("b", OUT, 2)]
    assert first(*run, *again) == ("model.b", "forward")
    assert first(good, *run, *again) == ("model.b", "forward")


def test_a_forward_pass_after_a_backward_one_is_another_step():
    good = told("a", OUT, 1, bad=0)
    assert first(good, told("b", BACK_OUT, 5), told("a", OUT, 1)) == ("model.b", "backward")
    loops = {"loops": [(4, False)]}
    steps = [told("b", BACK_OUT, 5, numbers=[0], **loops), told("a", OUT, 1, numbers=[1], **loops)]
    assert first(*steps) == ("model.b[0]", "backward")


def test_a_backward_pass_may_arrive_before_the_forward_one():
    events = [told("b", BACK_OUT, 5), told("c", OUT, 2), told("a", OUT, 1), told("d", BACK_OUT, 4)]
    for arrived in itertools.permutations(events):
        assert first(*arrived) == ("model.a", "forward")


def test_another_call_after_the_first_is_not_looked_at():
    assert first(told("b", OUT, 9, root=1), told("a", OUT, 3, root=2)) == ("model.b", "forward")


def test_infinities():
    infinite = {"bad": 0, "inf": 2}
    assert first(told("a", OUT, 1, **infinite)) == ("model.a", "forward")
    assert first(told("a", BACK_OUT, 1, **infinite)) == ("model.a", "backward")
    assert first(told("a", IN, 1, **infinite)) is None, "masks have them"
    assert first(told("a", OUT, 1, **infinite), infinities=False) is None


def test_sessions_hear_what_programs_tell():
    session = findings.Session(True)
    event = told("a", OUT, 1)
    findings.tell(event.site, [], [(1, 0)])
    assert session.error() is None
    findings.begin(session)
    findings.tell(event.site, [], [(1, 0)])
    findings.end(session)
    assert session.error().path == "model.a"


def test_what_went_in_is_said():
    session = findings.Session(True)
    session.note(told("a", IN, 1, bad=0, inf=3, call=7))
    session.note(told("a", OUT, 2, call=7))
    with pytest.raises(findings.NonFiniteError, match=r", from x f32\[2\] \(3 infinite\)\. Keep"):
        raise session.error()
    session = findings.Session(True)
    session.note(told("a", OUT, 2, call=7))
    with pytest.raises(findings.NonFiniteError, match="from no floating-point arrays"):
        raise session.error()


def test_what_went_in_may_not_have_arrived():
    session = findings.Session(True)
    event = told("a", OUT, 2, call=7)
    session.note(event._replace(site=event.site._replace(before=("x f32[2]", "kernel f32[2]"))))
    with pytest.raises(findings.NonFiniteError, match=r"from x f32\[2\], kernel f32\[2\]\. Keep"):
        raise session.error()
    session = findings.Session(True)
    session.note(told("a", BACK_OUT, 2, call=7))
    with pytest.raises(findings.NonFiniteError, match="from gradients of its outputs"):
        raise session.error()
