//! Which value of the setting `etags` is right for a storage.

/// The ETags that a storage gave, next to what they are if the store computes MD5s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Etags {
    compared: Vec<Compared>,
    /// Whether the answers name encryption with KMS or a customer's key.
    is_encrypted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    /// What the ETag is of.
    subject: &'static str,
    etag: String,
    /// The MD5 in hexadecimal, for an object of parts with the number of parts.
    expected: String,
}

/// What ETags show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// They are MD5s.
    Md5s,
    /// They are not MD5s, and the gateway cannot take them for MD5s. The text says why.
    Harmless(&'static str),
    /// They have the form of MD5s and are others, so the gateway takes them for damage unless it is configured not to. The
    /// text names one.
    Misleading(String),
}

// === impl Etags ===

impl Etags {
    /// Adds the ETag of `subject`, which is `expected` if the store computes MD5s.
    pub(super) fn add(&mut self, subject: &'static str, etag: String, expected: String) {
        self.compared.push(Compared {
            subject,
            etag,
            expected,
        });
    }

    /// Adds whether HEAD names encryption.
    pub(super) fn add_encryption(&mut self, is_encrypted: bool) {
        self.is_encrypted |= is_encrypted;
    }

    /// Adds all of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        self.compared.extend(other.compared);
        self.is_encrypted |= other.is_encrypted;
    }

    /// What they show together. `None` if there is none.
    pub(super) fn finding(&self) -> Option<Finding> {
        let is_md5 = |one: &&Compared| one.etag.eq_ignore_ascii_case(&one.expected);
        let mut others = self.compared.iter().filter(|one| !is_md5(one)).peekable();
        if self.compared.is_empty() {
            return None;
        }
        if others.peek().is_none() {
            return Some(Finding::Md5s);
        }
        if self.is_encrypted {
            return Some(Finding::Harmless(
                "the store's answers name the encryption, so the gateway does not compare them",
            ));
        }
        Some(match others.find(|one| has_form_of_md5(&one.etag)) {
            Some(one) => Finding::Misleading(format!(
                "the ETag of {} is {}, and its MD5 is {}",
                one.subject, one.etag, one.expected
            )),
            None => Finding::Harmless("they do not have the form of MD5s"),
        })
    }
}

/// Whether an ETag looks like an MD5, or like the MD5 of the MD5s of parts.
fn has_form_of_md5(etag: &str) -> bool {
    let digits = etag.split_once('-').map_or(etag, |(digits, _)| digits);
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
    const OTHER: &str = "f8bd4aa17c12a5c43ea3a8f4b0c8c6d1";

    fn etags(pairs: &[(&str, &str)]) -> Etags {
        let mut etags = Etags::default();
        for (etag, expected) in pairs {
            etags.add("an object", (*etag).into(), (*expected).into());
        }
        etags
    }

    #[test]
    fn etags_that_all_equal_the_md5s_are_md5s() {
        let upper = MD5.to_uppercase();
        let composite = format!("{MD5}-2");
        let all = etags(&[(MD5, MD5), (&upper, MD5), (&composite, &composite)]);
        assert_eq!(all.finding(), Some(Finding::Md5s));
        assert_eq!(etags(&[]).finding(), None);
    }

    #[test]
    fn one_other_etag_in_the_form_of_an_md5_is_misleading() {
        let other = format!("{OTHER}-2");
        let expected = format!("{MD5}-2");
        for (etag, expected) in [(OTHER, MD5), (&other, &expected)] {
            let found = etags(&[(MD5, MD5), (etag, expected)]).finding();
            let text = format!("the ETag of an object is {etag}, and its MD5 is {expected}");
            assert_eq!(found, Some(Finding::Misleading(text)));
        }
    }

    #[test]
    fn etags_of_another_form_or_of_an_encrypted_object_are_harmless() {
        for etag in ["", "0x8DC", &format!("{MD5}00"), &"x".repeat(32)] {
            let found = etags(&[(etag, MD5)]).finding();
            assert!(matches!(found, Some(Finding::Harmless(_))), "{etag}");
        }
        let mut encrypted = etags(&[(OTHER, MD5)]);
        encrypted.add_encryption(true);
        assert!(matches!(encrypted.finding(), Some(Finding::Harmless(_))));
    }
}
