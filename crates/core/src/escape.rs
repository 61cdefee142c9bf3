//! Hidden characters in text from callers. Names and other metadata must not contain them, and they are escaped in lines of
//! a log and in errors.

use std::borrow::Cow;

/// The text with escapes, `\n` or `\u{202e}`, in place of [hidden](is_hidden) characters.
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_if(text, is_hidden)
}

/// As [`escaped`], for a terminal: keeps the character that begins the codes of colours.
pub fn escaped_with_colours(text: &str) -> Cow<'_, str> {
    escaped_if(text, |character| {
        character != '\u{1b}' && is_hidden(character)
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

/// Whether a character ends the line, controls a terminal, changes the order of what follows, or shows nothing: control
/// characters, separators of lines and paragraphs, the controls of Unicode's bidirectional algorithm, the invisible format
/// characters, and tag characters. Not the joiners U+200C and U+200D: Persian words and emojis contain them.
/// <https://www.unicode.org/reports/tr36/>
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_escaped_and_nothing_else() {
        for (text, safe) in [
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u{1b}[2J\\u{7f}\\u{9b}"),
            (
                "a\u{2028}b\u{202e}c\u{2066}",
                "a\\u{2028}b\\u{202e}c\\u{2066}",
            ),
            (
                "a\u{61c}b\u{180e}c\u{200b}d\u{feff}e\u{e0041}",
                "a\\u{61c}b\\u{180e}c\\u{200b}d\\u{feff}e\\u{e0041}",
            ),
            (
                "später/图片 \\n \"x\" \u{200c}\u{200d}",
                "später/图片 \\n \"x\" \u{200c}\u{200d}",
            ),
        ] {
            assert_eq!(escaped(text), safe);
        }
        assert_eq!(escaped_with_colours("\u{1b}[31m\n"), "\u{1b}[31m\\n");
    }
}
