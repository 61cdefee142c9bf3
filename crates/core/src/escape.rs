//! Text from callers in lines of a log and in errors.

use std::borrow::Cow;

/// The text with escapes, `\n` or `\u{202e}`, in place of characters that would end its line, control a terminal, or change
/// the order of what follows.
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_if(text, is_unsafe)
}

/// As [`escaped`], for a terminal: keeps the character that begins the codes of colours.
pub fn escaped_with_colours(text: &str) -> Cow<'_, str> {
    escaped_if(text, |character| {
        character != '\u{1b}' && is_unsafe(character)
    })
}

fn escaped_if(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_escaped(character) {
            true => safe.extend(character.escape_default()),
            false => safe.push(character),
        }
    }
    safe.into()
}

/// Control characters, separators of lines and paragraphs, and the controls of Unicode's bidirectional algorithm.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_line_is_escaped_and_nothing_else() {
        for (text, safe) in [
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            (
                "a\u{2028}b\u{202e}c\u{2066}",
                "a\\u{2028}b\\u{202e}c\\u{2066}",
            ),
            (
                "später/图片 \\n \"x\" \u{200d}",
                "später/图片 \\n \"x\" \u{200d}",
            ),
        ] {
            assert_eq!(escaped(text), safe);
        }
        assert_eq!(escaped_with_colours("\u{1b}[31m\n"), "\u{1b}[31m\\n");
    }
}
