//! Entries of indexes as both state stores keep them: an order of bytes, and a value.
//!
//! | bytes | content |
//! |---|---|
//! | name | the folded name and a NUL; only in an index that is ordered by name |
//! | 8 | the time of creation, inverted, so that the newest comes first |
//! | 24 | the upload id |
//! | 1 | the value begins: a letter for the phase |
//! | rest | the labels of the entry, as far as searches in the index need them |

use upload_gateway_core::{
    state::{Cursor, Entry, Index, Listing, Selection},
    upload::{Phase, Timestamp, UploadId},
};

/// The length of the time of creation, and with the id of a position.
const AGE: usize = 8;
const POSITION: usize = AGE + UploadId::BYTES;

/// Sorts after every order with the same beginning: no text has it, and no value begins with it.
const LAST: u8 = 0xff;

/// The name of a listing, unique.
pub(super) fn listing_name(listing: &Listing) -> String {
    match listing {
        Listing::Owner(owner) => {
            let (tenant, subject) = (&owner.tenant, &owner.subject);
            // The length keeps ("a:b", "c") and ("a", "b:c") apart.
            format!("owner:{}:{tenant}:{subject}", tenant.len())
        }
        Listing::Tenant(tenant) => format!("tenant:{tenant}"),
    }
}

/// The names of the indexes that a store keeps, each unique in a listing, of which this one is made: one, or one of each phase.
pub(super) fn index_names(index: &Index) -> Vec<String> {
    let phase = |phase: &Phase| format!("phase:{phase}");
    let placed = |phase: &Phase, storage_id: &str| format!("storage:{phase}:{storage_id}");
    let phases = Index::PHASES.iter();
    match index {
        Index::All => phases.map(phase).collect(),
        Index::Tag(tag) => vec![format!("tag:{tag}")],
        Index::Storage(storage_id) => phases.map(|phase| placed(phase, storage_id)).collect(),
        Index::Phase(only) => vec![phase(only)],
        Index::StoragePhase(storage_id, phase) => vec![placed(phase, storage_id)],
        Index::Name(_) => vec!["name".to_owned()],
    }
}

/// The first `limit` of the members that several indexes have, in their order. One that changed its phase while they were read
/// can be in two of them.
pub(super) fn merge(members: Vec<Vec<Vec<u8>>>, limit: usize) -> Vec<Vec<u8>> {
    // Those of an index by name are of one.
    let has_several = members.len() > 1;
    let mut members: Vec<_> = members.into_iter().flatten().collect();
    if has_several {
        members.sort();
        members.dedup_by(|one, other| one.get(..POSITION) == other.get(..POSITION));
        members.truncate(limit);
    }
    members
}

/// The order of an entry.
pub(super) fn order(entry: &Entry, index: &Index) -> Vec<u8> {
    let name = index.is_by_name().then(|| entry.name());
    order_of(name, entry.created_at, entry.id)
}

/// The value of an entry.
pub(super) fn value(entry: &Entry, index: &Index) -> Vec<u8> {
    let labels = match index {
        Index::All | Index::Phase(_) | Index::Tag(_) => entry.labels(),
        Index::Storage(_) | Index::StoragePhase(..) => entry.without_tags(),
        Index::Name(_) => entry.without_name(),
    };
    let mut value = vec![letter(entry.phase)];
    value.extend_from_slice(labels.as_bytes());
    value
}

/// The entry of an order and its value, one after the other. `None` if they are unreadable.
pub(super) fn read(member: &[u8], is_by_name: bool) -> Option<Entry> {
    let (name, rest) = match is_by_name {
        true => {
            let end = member.iter().position(|byte| *byte == 0)?;
            (Some(&member[..end]), &member[end + 1..])
        }
        false => (None, member),
    };
    let (position, value) = rest.split_at_checked(POSITION)?;
    let (age, id) = position.split_at(AGE);
    let (phase, labels) = value.split_first()?;
    let mut labels = std::str::from_utf8(labels).ok()?.to_owned();
    if let Some(name) = name {
        labels.push('\0');
        labels.push_str(std::str::from_utf8(name).ok()?);
    }
    let created_at = Timestamp(u64::MAX - u64::from_be_bytes(age.try_into().ok()?));
    let entry = Entry::with(created_at, id.try_into().ok()?, phase_of(*phase)?, labels);
    Some(entry)
}

/// The first order after `after` that a selection can have, and the one before which it ends. `None`: it ends with the index.
pub(super) fn range(selection: &Selection, after: Option<&Cursor>) -> (Vec<u8>, Option<Vec<u8>>) {
    let next = after.map_or_else(Vec::new, |after| {
        let name = selection.index.is_by_name();
        let name = name.then(|| after.name.as_deref().unwrap_or_default());
        following(order_of(name, after.created_at, after.id.to_bytes()))
    });
    if let Index::Name(prefix) = &selection.index {
        let mut end = prefix.clone().into_bytes();
        end.push(LAST);
        return (next.max(prefix.clone().into_bytes()), Some(end));
    }
    let created = selection.created;
    // The first time that is too old comes after the last one that is not.
    let older = |time: Timestamp| (u64::MAX - time.0).checked_add(1).map(u64::to_be_bytes);
    let first = created.before.map_or_else(Vec::new, |end| {
        older(end).map_or_else(|| vec![LAST; POSITION + 1], |age| age.to_vec())
    });
    let end = created.from.and_then(older).map(|age| age.to_vec());
    (next.max(first), end)
}

/// What sorts after an order, and before the next one.
pub(super) fn following(mut order: Vec<u8>) -> Vec<u8> {
    order.push(LAST);
    order
}

/// The order of the entry that was created then.
pub(super) fn order_of(
    name: Option<&str>,
    created_at: Timestamp,
    id: [u8; UploadId::BYTES],
) -> Vec<u8> {
    let mut order = Vec::with_capacity(POSITION + name.map_or(0, |name| name.len() + 1));
    if let Some(name) = name {
        order.extend_from_slice(name.as_bytes());
        order.push(0);
    }
    order.extend_from_slice(&(u64::MAX - created_at.0).to_be_bytes());
    order.extend_from_slice(&id);
    order
}

fn letter(phase: Phase) -> u8 {
    match phase {
        Phase::Open => b'o',
        Phase::Committing => b'm',
        Phase::Complete => b'c',
        Phase::Aborted => b'a',
        Phase::Deleting => b'd',
    }
}

fn phase_of(letter: u8) -> Option<Phase> {
    match letter {
        b'o' => Some(Phase::Open),
        b'm' => Some(Phase::Committing),
        b'c' => Some(Phase::Complete),
        b'a' => Some(Phase::Aborted),
        b'd' => Some(Phase::Deleting),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::state::Created;

    use super::*;

    fn entry(created_at: u64, name: &str) -> Entry {
        let id = UploadId::generate(None).to_bytes();
        let labels = format!("media\0image/png\0{name}\0x\0y");
        Entry::with(Timestamp(created_at), id, Phase::Aborted, labels)
    }

    #[test]
    fn an_entry_reads_back_from_each_index_with_what_it_needs() {
        let entry = entry(17, "\u{fc} b");
        for (index, tags) in [
            (Index::All, &["x", "y"][..]),
            (Index::Tag("x".into()), &["x", "y"]),
            (Index::Storage("media".into()), &[]),
            (Index::Phase(Phase::Aborted), &["x", "y"]),
            (Index::StoragePhase("media".into(), Phase::Aborted), &[]),
            (Index::Name(String::new()), &[]),
        ] {
            let member = [order(&entry, &index), value(&entry, &index)].concat();
            let read = read(&member, index.is_by_name()).unwrap();
            assert_eq!((read.created_at, read.id), (entry.created_at, entry.id));
            assert_eq!(read.phase, Phase::Aborted);
            assert_eq!(read.without_tags(), entry.without_tags(), "{index:?}");
            assert!(read.tags().eq(tags.iter().copied()), "{index:?}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let index = Index::Name(String::new());
        let entry = entry(17, "a");
        let member = [order(&entry, &index), value(&entry, &index)].concat();
        for length in 0..=POSITION + 2 {
            assert_eq!(read(&member[..length], true), None, "{length}");
        }
        for other in [&b"x"[..], &[0xff; POSITION + 9], &[b'o'; POSITION + 9]] {
            assert_eq!(read(other, true), None);
        }
        assert_eq!(read(&[0xff; POSITION + 9], false), None);
    }

    #[test]
    fn a_range_has_the_entries_of_its_times_after_a_position() {
        let mut entries: Vec<_> = [1, 5, 5, 9].map(|time| entry(time, "a")).into();
        entries.sort_by_key(|entry| order(entry, &Index::All));
        let time = |time: u64| Some(Timestamp(time));
        for (from, before, after, expected) in [
            (None, None, None, 0..4),
            (time(5), None, None, 0..3),
            (None, time(5), None, 3..4),
            (time(2), time(9), None, 1..3),
            (None, time(9), Some(1), 2..4),
            (time(5), None, Some(2), 3..3),
            (time(0), time(0), None, 4..4),
            (time(u64::MAX), time(u64::MAX), None, 4..4),
        ] {
            let selection = Selection {
                listing: Listing::Tenant("t".into()),
                index: Index::All,
                created: Created { from, before },
            };
            let after = after.map(|at: usize| entries[at].cursor(false));
            let (first, end) = range(&selection, after.as_ref());
            let has = |entry: &&Entry| {
                let order = order(entry, &Index::All);
                order >= first && end.as_ref().is_none_or(|end| order < *end)
            };
            let found: Vec<_> = entries.iter().filter(has).collect();
            let expected: Vec<_> = entries[expected].iter().collect();
            assert_eq!(found, expected, "{selection:?} after {after:?}");
        }
    }
}
