//! A client's questions for older messages, and checks of the answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::coverage::Coverage;
use super::truth::{Position, Truth, room_number};

/// A `history` that is not answered yet.
#[derive(Debug)]
pub(crate) struct LookBack {
    pub(crate) room: usize,
    pub(crate) before: Option<u64>,
    pub(crate) limit: u64,
    /// Where deliveries stood when it was asked.
    pub(crate) at: Option<Position>,
}

/// The questions of a connection, by id.
#[derive(Debug, Default)]
pub(crate) struct LooksBack(BTreeMap<String, LookBack>);

#[derive(Deserialize)]
struct Answer<'a> {
    room: &'a str,
    epoch: &'a str,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    more: bool,
    id: &'a str,
}

type Checked = Result<(), String>;

impl LooksBack {
    pub(crate) fn sent(&mut self, id: String, question: LookBack) {
        self.0.insert(id, question);
    }

    pub(crate) fn unanswered(&self) -> Option<&String> {
        self.0.keys().next()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// A request was refused, perhaps one of these.
    pub(crate) fn on_error(&mut self, id: &str, coverage: &mut Coverage) {
        coverage.looks_back_refused += u64::from(self.0.remove(id).is_some());
    }

    /// Says which room it was of.
    pub(crate) fn on_history(
        &mut self,
        text: &str,
        truth: &mut Truth,
        coverage: &mut Coverage,
    ) -> Result<usize, String> {
        let answer: Answer<'_> = serde_json::from_str(text).map_err(|error| format!("no page: {error}"))?;
        let asked = self.0.remove(answer.id).ok_or("an answer to nothing")?;
        if asked.room != room_number(answer.room) {
            return Err(format!("another room than in {asked:?}"));
        }
        check(&asked, &answer, truth)?;
        coverage.looked_back += u64::from(!answer.messages.is_empty());
        coverage.looked_back_to_the_end += u64::from(!answer.messages.is_empty() && !answer.more);
        coverage.looked_back_in_part += u64::from(answer.more);
        Ok(asked.room)
    }
}

fn check(asked: &LookBack, answer: &Answer<'_>, truth: &mut Truth) -> Checked {
    let epoch = truth.epoch(asked.room, answer.epoch);
    let mut seqs = Vec::new();
    for message in &answer.messages {
        let seq = message.get().rsplit_once(r#","seq":"#).and_then(|(_, rest)| rest.strip_suffix('}')?.parse().ok());
        let seq = seq.ok_or("a message without seq")?;
        if !truth.is_said(asked.room, Position { epoch, seq }, message.get()) {
            return Err(format!("not what the bus has as {seq} in {}: {message}", answer.epoch));
        }
        seqs.push(seq);
    }
    if !seqs.windows(2).all(|pair| pair[1] == pair[0] + 1) {
        return Err(format!("no piece of history: {seqs:?}"));
    }
    let before = asked.before.unwrap_or(u64::MAX);
    let Some(last) = seqs.last() else {
        return if answer.more { Err("more, and none of them".to_owned()) } else { Ok(()) };
    };
    // Only at the end of history may there be less than what comes right before the number.
    let top = asked.at.filter(|at| at.epoch == epoch).map_or(0, |at| at.seq);
    if *last >= before || *last < top.min(before - 1) || seqs.len() as u64 > asked.limit {
        return Err(format!("{seqs:?} is no answer to {asked:?}"));
    }
    Ok(())
}
