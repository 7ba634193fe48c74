//! Single cases, each as small as it can be.

use super::*;
use crate::bus::redis::connection::RunId;
use crate::bus::redis::ordering::history::{
    ChannelMessage, HistoryQuery, HistorySlice, OrderingStep, RoomPosition, fingerprint_of,
};
use crate::bus::redis::ordering::reassembler::Reassembler;

fn arrival(epoch: &str, seq: u64) -> ChannelMessage {
    ChannelMessage {
        run_id: RunId::UNKNOWN,
        epoch: Epoch::new(epoch),
        seq,
        body: Bytes::from(format!("{epoch}/{seq}")),
    }
}

fn position(epoch: &str, top: u64) -> RoomPosition {
    RoomPosition { run_id: RunId::UNKNOWN, epoch: Epoch::new(epoch), top, fingerprint: None }
}

/// The answer of a run in which the epoch is confirmed.
fn slice(epoch: &str, top: u64, messages: Vec<Numbered>) -> HistorySlice {
    HistorySlice { position: position(epoch, top), is_confirmed: true, complete: true, messages }
}

fn known(epoch: &str, top: u64) -> Reassembler {
    let mut reassembler = Reassembler::new();
    reassembler.observe(position(epoch, top), &mut Vec::new());
    reassembler
}

fn numbers(steps: &[OrderingStep]) -> Vec<u64> {
    let number = |step: &OrderingStep| match step {
        OrderingStep::Deliver(message) => message.seq,
        OrderingStep::EpochChanged { top, .. } => 1000 + top,
    };
    steps.iter().map(number).collect()
}

#[test]
fn what_arrives_before_the_first_page_is_delivered_behind_it() {
    let (mut reassembler, mut steps) = (Reassembler::new(), Vec::new());
    for seq in 3..=6 {
        reassembler.take(arrival("a", seq), &mut steps);
    }
    assert!(steps.is_empty() && reassembler.poll_query().is_none());
    reassembler.observe(position("a", 4), &mut steps);
    assert_eq!(numbers(&steps), [5, 6]);
    assert_eq!(reassembler.poll_query(), None);
}

#[test]
fn the_first_messages_of_a_new_epoch_are_not_passed_over() {
    let (mut reassembler, mut steps) = (known("a", 7), Vec::new());
    reassembler.take(arrival("b", 1), &mut steps);
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(7)));
    reassembler.take(arrival("b", 2), &mut steps);
    reassembler.answer(slice("b", 1, Vec::new()), &mut steps);
    assert_eq!(numbers(&steps), [1000, 1, 2]);
    assert_eq!((reassembler.poll_query(), reassembler.skipped()), (None, 0));
}

#[test]
fn too_many_messages_behind_a_gap_are_read_again() {
    let (mut reassembler, mut steps) = (known("a", 0), Vec::new());
    for seq in 2..=5000 {
        reassembler.take(arrival("a", seq), &mut steps);
    }
    assert!(steps.is_empty());
    let mut asked = Vec::new();
    while let Some(question) = reassembler.poll_query() {
        let HistoryQuery::Since(from) = question else { panic!("{question:?}") };
        let messages: Vec<_> =
            (from..=5000.min(from + 499)).map(|seq| Numbered { seq, body: arrival("a", seq).body }).collect();
        let complete = messages.last().is_some_and(|last| last.seq == 5000);
        reassembler.answer(HistorySlice { complete, ..slice("a", 5000, messages) }, &mut steps);
        asked.push(from);
    }
    assert_eq!(numbers(&steps), (1..=5000).collect::<Vec<_>>());
    assert!(asked.len() < 12, "{asked:?}");
}

#[test]
fn a_number_given_out_twice_begins_a_new_epoch() {
    let (mut reassembler, mut steps) = (known("a", 0), Vec::new());
    reassembler.take(arrival("a", 1), &mut steps);
    reassembler.require_resync();
    reassembler.take(arrival("a", 2), &mut steps);
    assert_eq!(numbers(&steps), [1], "after an interruption nothing is delivered unasked");
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(1)));
    let other = Numbered { seq: 1, body: Bytes::from_static(b"another") };
    let messages = vec![other, Numbered { seq: 2, body: arrival("a", 2).body }];
    reassembler.answer(slice("a", 2, messages), &mut steps);
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Renew(Epoch::new("a"))));
    reassembler.answer(slice("b", 2, Vec::new()), &mut steps);
    assert_eq!(numbers(&steps), [1, 1002]);
}

#[test]
fn a_gap_that_is_seen_while_a_position_is_asked_for_is_filled() {
    let (mut reassembler, mut steps) = (known("a", 1), Vec::new());
    reassembler.check_position();
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Position));
    reassembler.take(arrival("a", 3), &mut steps);
    reassembler.answer(slice("a", 1, Vec::new()), &mut steps);
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(1)));
}

#[test]
fn what_waits_does_not_keep_all_that_was_read_with_it() {
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    let (mut reassembler, mut steps) = (known("a", 1), Vec::new());
    for (epoch, seq) in [("a", 3), ("b", 1)] {
        reassembler.take(
            ChannelMessage { run_id: RunId::UNKNOWN, epoch: Epoch::new(epoch), seq, body: chunk.slice(..100) },
            &mut steps,
        );
    }
    assert!(chunk.is_unique() && steps.is_empty());
    reassembler.take(
        ChannelMessage { run_id: RunId::UNKNOWN, epoch: Epoch::new("a"), seq: 2, body: chunk.slice(..100) },
        &mut steps,
    );
    assert_eq!((numbers(&steps), chunk.is_unique()), (vec![2, 3], false), "what is delivered at once is not copied");
}

/// The answer of a Redis without history.
fn nothing(epoch: &str, top: u64) -> HistorySlice {
    slice(epoch, top, Vec::new())
}

#[test]
fn without_history_an_interruption_that_missed_nothing_ends_no_epoch() {
    let (mut reassembler, mut steps) = (known("a", 5), Vec::new());
    reassembler.require_resync();
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(5)));
    // Said after the question was answered, or before: it continues what was delivered.
    reassembler.take(arrival("a", 6), &mut steps);
    reassembler.answer(nothing("a", 5), &mut steps);
    assert_eq!((numbers(&steps), reassembler.poll_query()), (vec![6], None));
    assert!(!reassembler.awaits());
}

#[test]
fn without_history_what_the_answer_has_overtaken_is_awaited() {
    let (mut reassembler, mut steps) = (known("a", 5), Vec::new());
    reassembler.require_resync();
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(5)));
    reassembler.answer(nothing("a", 7), &mut steps);
    assert!(reassembler.awaits() && reassembler.poll_query().is_none());
    reassembler.check_awaited();
    reassembler.take(arrival("a", 6), &mut steps);
    reassembler.take(arrival("a", 7), &mut steps);
    assert!(!reassembler.awaits());
    reassembler.check_awaited();
    assert_eq!((numbers(&steps), reassembler.poll_query()), (vec![6, 7], None));
}

#[test]
fn without_history_what_does_not_come_ends_the_epoch() {
    let renew = Some(HistoryQuery::Renew(Epoch::new("a")));
    let after_gap = || {
        let mut reassembler = known("a", 5);
        reassembler.require_resync();
        reassembler.poll_query();
        reassembler.answer(nothing("a", 7), &mut Vec::new());
        reassembler
    };
    let mut reassembler = after_gap();
    (0..2).for_each(|_| reassembler.check_awaited());
    assert_eq!(reassembler.poll_query(), renew);

    // A later message shows at once that it is lost.
    let (mut reassembler, mut steps) = (after_gap(), Vec::new());
    reassembler.take(arrival("a", 8), &mut steps);
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(5)));
    reassembler.answer(nothing("a", 8), &mut steps);
    assert_eq!((reassembler.poll_query(), steps), (renew, Vec::new()));
}

/// The same of a run of Redis that is not the one before, and in which nobody has confirmed the epoch.
fn of_new_run(slice: HistorySlice) -> HistorySlice {
    HistorySlice { position: RoomPosition { run_id: RunId::new(2), ..slice.position }, is_confirmed: false, ..slice }
}

/// A room in which message 5 was the last before Redis was lost sight of.
fn interrupted() -> Reassembler {
    let mut reassembler = known("a", 4);
    reassembler.take(arrival("a", 5), &mut Vec::new());
    reassembler.require_resync();
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Since(5)));
    reassembler
}

#[test]
fn an_epoch_goes_on_in_a_new_run_of_redis_if_the_last_message_is_still_the_same() {
    let (mut reassembler, mut steps) = (interrupted(), Vec::new());
    let same = Numbered { seq: 5, body: arrival("a", 5).body };
    reassembler.answer(of_new_run(slice("a", 5, vec![same])), &mut steps);
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Confirm(Epoch::new("a"), RunId::new(2))));
    let confirmed = HistorySlice { is_confirmed: true, ..of_new_run(nothing("a", 5)) };
    reassembler.answer(confirmed, &mut steps);
    assert_eq!((reassembler.poll_query(), reassembler.run_id()), (None, Some(RunId::new(2))));
    reassembler.take(ChannelMessage { run_id: RunId::new(2), ..arrival("a", 6) }, &mut steps);
    assert_eq!(numbers(&steps), [6]);
}

#[test]
fn a_new_run_of_redis_that_cannot_be_compared_ends_the_epoch() {
    let mut reassembler = interrupted();
    reassembler.answer(of_new_run(nothing("a", 5)), &mut Vec::new());
    assert_eq!(reassembler.poll_query(), Some(HistoryQuery::Renew(Epoch::new("a"))));
}

#[test]
fn without_history_the_end_of_the_newest_message_is_enough_to_go_on() {
    let ending = Some(fingerprint_of(&arrival("a", 5).body));
    for (fingerprint, expected) in [
        (ending, HistoryQuery::Confirm(Epoch::new("a"), RunId::new(2))),
        (Some(7), HistoryQuery::Renew(Epoch::new("a"))),
    ] {
        let mut reassembler = interrupted();
        let answer = of_new_run(nothing("a", 5));
        let position = RoomPosition { fingerprint, ..answer.position };
        reassembler.answer(HistorySlice { position, ..answer }, &mut Vec::new());
        assert_eq!(reassembler.poll_query(), Some(expected));
    }
}

#[test]
fn messages_of_a_run_that_is_not_compared_yet_wait() {
    let (mut reassembler, mut steps) = (known("a", 5), Vec::new());
    reassembler.take(ChannelMessage { run_id: RunId::new(2), ..arrival("a", 6) }, &mut steps);
    assert_eq!((numbers(&steps), reassembler.poll_query()), (vec![], Some(HistoryQuery::Since(5))));
}
