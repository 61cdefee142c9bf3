//! The reserve: to whom it is lent, and how the loan ends.

use super::{Grant, Holder, Ledger};
use crate::gateway::stream::budget::amount::Amount;

/// To whom the reserve is lent: a stream, for its messages and one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Lent {
    stream: u64,
    part: Option<u64>,
}

// === impl Ledger ===

impl Ledger {
    /// Moves up to `bytes` from the messages of a stream to one of its parts.
    pub(in super::super) fn hand_over(&mut self, part: Holder, bytes: u64) -> Amount {
        let may_borrow = self.may_borrow(part);
        let Some(receiving) = self.streams.get_mut(&part.stream) else {
            return Amount::default();
        };
        let mut moved = receiving.messages.split(bytes);
        if moved.from_reserve > 0 {
            if may_borrow {
                self.lent = Some(Lent {
                    stream: part.stream,
                    part: part.part,
                });
            } else {
                self.redeem(&mut moved);
            }
        }
        moved
    }

    /// Replaces what is from the reserve by free bytes, or by a debt.
    fn redeem(&mut self, amount: &mut Amount) {
        let bytes = std::mem::take(&mut amount.from_reserve);
        amount.from_free += bytes;
        self.reserve += bytes;
        let paid = self.free.min(bytes);
        self.free -= paid;
        self.debt += bytes - paid;
    }

    /// Adds free bytes, which first pay the debt.
    pub(super) fn credit(&mut self, bytes: u64) {
        let paid = self.debt.min(bytes);
        self.debt -= paid;
        self.free += bytes - paid;
    }

    /// Whether the reserve is lent to `holder`, or only to its stream.
    pub(super) fn may_borrow(&self, holder: Holder) -> bool {
        self.lent.is_some_and(|lent| {
            lent.stream == holder.stream
                && (holder.part.is_none() || lent.part.is_none() || lent.part == holder.part)
        })
    }

    /// Ends a loan whose `holder` has returned its bytes. A message that its stream has begun to receive in the meantime
    /// keeps its bytes. They are replaced, so that the next stream gets the whole reserve.
    pub(super) fn end_loan(&mut self, holder: Holder) {
        let Some(lent) = self.lent else { return };
        let is_of_part = lent.part.is_some();
        if lent.stream != holder.stream || (is_of_part && lent.part != holder.part) {
            return;
        }
        let held = self.streams.get(&lent.stream);
        let mut held = held.map(|held| held.messages).unwrap_or_default();
        if held.from_reserve > 0 {
            if !is_of_part || self.debt + held.from_reserve > self.max_debt {
                self.lent = Some(Lent { part: None, ..lent });
                return;
            }
            self.redeem(&mut held);
            if let Some(messages) = self.messages(lent.stream) {
                *messages = held;
            }
        }
        self.lent = None;
    }

    pub(super) fn withdraw(&mut self, grant: &Grant, holder: Holder, bytes: u64) {
        match grant {
            Grant::FromFree => self.free -= bytes,
            Grant::FromReserve => {
                self.reserve -= bytes;
                let part = self.lent.and_then(|lent| lent.part).or(holder.part);
                self.lent = Some(Lent {
                    stream: holder.stream,
                    part,
                });
            }
            Grant::Buffer(_) => {}
        }
    }
}
