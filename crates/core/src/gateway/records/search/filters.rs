//! The filters of a search, and which index answers it.

use std::borrow::Cow;

use super::Scope;
use crate::{
    state::{Created, Entry, Index, Listing, Selection, folded, nfc},
    upload::{Phase, policy},
};

/// The filters of a listing. An upload must match all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Whose uploads.
    pub scope: Scope,
    /// Only uploads in this phase.
    pub phase: Option<Phase>,
    /// Only uploads in this storage.
    pub storage_id: Option<String>,
    /// Only uploads with all of these tags. As in the file name, normal forms of Unicode are the same.
    pub tags: Vec<String>,
    /// Only uploads with this text in the file name. Upper and lower case are the same.
    pub file_name: Option<String>,
    /// Only uploads whose file name begins with this text. Upper and lower case are the same. Without tags, the uploads are
    /// then ordered by name.
    pub name_prefix: Option<String>,
    /// Only uploads with this media type, or with any media type of `type/*`.
    pub file_mime: Option<String>,
    /// Only uploads that were created then.
    pub created: Created,
}

/// A search whose texts are prepared for comparison.
pub(super) struct Matcher<'a> {
    search: &'a Search,
    tags: Vec<Cow<'a, str>>,
    file_name: Option<String>,
    name_prefix: Option<String>,
}

// === impl Search ===

impl Search {
    /// Whether every upload matches.
    pub fn matches_all(&self) -> bool {
        let all = Self {
            scope: self.scope.clone(),
            ..Self::default()
        };
        *self == all
    }

    /// Whether an index has exactly the uploads that match.
    pub(super) fn is_indexed(&self) -> bool {
        let mut rest = self.clone();
        let index = self.index();
        match &index {
            Index::All => {}
            Index::Tag(_) => drop(rest.tags.remove(0)),
            Index::Storage(_) => rest.storage_id = None,
            Index::Phase(_) => rest.phase = None,
            Index::StoragePhase(..) => (rest.storage_id, rest.phase) = (None, None),
            Index::Name(_) => rest.name_prefix = None,
        }
        if !index.is_by_name() {
            rest.created = Created::default();
        }
        rest.matches_all()
    }

    /// The part of a listing that is searched.
    pub(super) fn selection(&self, listing: Listing) -> Selection {
        Selection {
            listing,
            index: self.index(),
            created: self.created,
        }
    }

    /// The index that is expected to have the fewest uploads. A tag is chosen before a name, because it keeps the order by
    /// creation.
    pub(super) fn index(&self) -> Index {
        if let Some(tag) = self.tags.first() {
            return Index::Tag(nfc(tag).into_owned());
        }
        if let Some(prefix) = &self.name_prefix {
            return Index::Name(folded(prefix));
        }
        match (self.phase, self.storage_id.clone()) {
            (Some(phase), Some(storage_id)) => Index::StoragePhase(storage_id, phase),
            (Some(phase), None) => Index::Phase(phase),
            (None, Some(storage_id)) => Index::Storage(storage_id),
            (None, None) => Index::All,
        }
    }

    pub(super) fn matcher(&self) -> Matcher<'_> {
        Matcher {
            search: self,
            tags: self.tags.iter().map(|tag| nfc(tag)).collect(),
            file_name: self.file_name.as_deref().map(folded),
            name_prefix: self.name_prefix.as_deref().map(folded),
        }
    }
}

// === impl Matcher ===

impl Matcher<'_> {
    pub(super) fn matches(&self, entry: &Entry) -> bool {
        let search = self.search;
        let storage_id = search.storage_id.as_ref();
        let file_mime = search.file_mime.as_ref();
        let (text, prefix) = (self.file_name.as_ref(), self.name_prefix.as_ref());
        search.phase.is_none_or(|phase| phase == entry.phase)
            && search.created.has(entry.created_at)
            && storage_id.is_none_or(|id| *id == entry.storage_id())
            && file_mime.is_none_or(|mime| policy::is_mime(entry.file_mime(), mime))
            && text.is_none_or(|text| entry.name().contains(text))
            && prefix.is_none_or(|prefix| entry.name().starts_with(prefix))
            && self.has_tags(entry)
    }

    fn has_tags(&self, entry: &Entry) -> bool {
        let has = |tag: &Cow<'_, str>| entry.tags().any(|known| known == tag);
        self.tags.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Timestamp;

    #[test]
    fn one_index_is_chosen_and_may_answer_alone() {
        let some = |text: &str| Some(text.to_owned());
        let all = Search::default();
        let tagged = Search {
            tags: vec!["u\u{308}".into()],
            ..all.clone()
        };
        let named = Search {
            name_prefix: some("\u{dc}ber"),
            ..all.clone()
        };
        let open = Search {
            phase: Some(Phase::Open),
            ..all.clone()
        };
        let stored = Search {
            storage_id: some("a"),
            ..all.clone()
        };
        let since = |search: &Search| Search {
            created: Created {
                from: Some(Timestamp(7)),
                before: None,
            },
            ..search.clone()
        };
        let texts = |search: &Search| Search {
            file_name: some("x"),
            ..search.clone()
        };
        let both = |search: &Search| Search {
            storage_id: some("a"),
            ..search.clone()
        };
        let complete = Search {
            phase: Some(Phase::Complete),
            ..all.clone()
        };
        let images = Search {
            file_mime: some("image/*"),
            ..all.clone()
        };
        let (tag, name) = (Index::Tag("\u{fc}".into()), Index::Name("\u{fc}ber".into()));
        let placed = |phase| Index::StoragePhase("a".into(), phase);
        for (search, index, is_indexed) in [
            (all.clone(), Index::All, true),
            (since(&all), Index::All, true),
            (texts(&all), Index::All, false),
            (images, Index::All, false),
            (tagged.clone(), tag.clone(), true),
            (since(&tagged), tag.clone(), true),
            (both(&tagged), tag, false),
            (named.clone(), name.clone(), true),
            // The order is by name.
            (since(&named), name.clone(), false),
            (both(&named), name, false),
            (open.clone(), Index::Phase(Phase::Open), true),
            (since(&open), Index::Phase(Phase::Open), true),
            (texts(&open), Index::Phase(Phase::Open), false),
            (both(&open), placed(Phase::Open), true),
            (stored, Index::Storage("a".into()), true),
            (complete.clone(), Index::Phase(Phase::Complete), true),
            (both(&complete), placed(Phase::Complete), true),
            (since(&both(&complete)), placed(Phase::Complete), true),
            (texts(&both(&complete)), placed(Phase::Complete), false),
        ] {
            assert_eq!(search.index(), index, "{search:?}");
            assert_eq!(search.is_indexed(), is_indexed, "{search:?}");
        }
    }
}
