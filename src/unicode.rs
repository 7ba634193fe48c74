//! What of Unicode names and logs are made of: one spelling of each name, and nothing that cannot be seen.

use std::fmt::{self, Write};

use icu_normalizer::ComposingNormalizerBorrowed;

/// The most characters that are looked at for a display name. A text that has more is cut before it is normalised, so that
/// its length costs nothing.
const NAME_CHARS_READ_MAX: usize = 512;

/// The most bytes that [`Escaped`] writes, with the ellipsis.
const ESCAPED_BYTES_MAX: usize = 1024;

/// What stands for the rest of a text that is too long.
const ELLIPSIS: char = '…';

/// Whether a character shows nothing of its own, but ends a line, turns the direction of its neighbours or hides between them.
///
/// These are the control characters, the line and paragraph separators, and the characters with the property
/// `Default_Ignorable_Code_Point` without the variation selectors of emoji; to them come annotations, private use and
/// noncharacters. Unassigned characters are none of them: they are letters of a later Unicode than this program's.
pub(crate) fn is_hidden(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || matches!(code,
            0x00ad | 0x034f | 0x061c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180e | 0x200b..=0x200f
            | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
            | 0x1_bca0..=0x1_bca3 | 0x1_d173..=0x1_d17a | 0xe_0000..=0xe_0fff)
        || matches!(code, 0xe000..=0xf8ff | 0xf_0000..=0x10_ffff | 0xfdd0..=0xfdef)
        || code & 0xfffe == 0xfffe
}

/// The first character from which on a text is not in normalisation form C.
pub(crate) fn first_not_nfc(text: &str) -> Option<char> {
    if text.is_ascii() {
        return None;
    }
    let (_, rest) = ComposingNormalizerBorrowed::new_nfc().split_normalized(text);
    rest.chars().next()
}

/// Whether the character at a place joins its neighbours, or keeps them apart, as Persian and Indic letters and emoji need it.
fn joins(text: &[char], at: usize) -> bool {
    let is_neighbour = |c: Option<&char>| c.is_some_and(|c| !c.is_ascii() && !c.is_whitespace() && !is_hidden(*c));
    matches!(text[at], '\u{200c}' | '\u{200d}')
        && at > 0
        && is_neighbour(text.get(at - 1))
        && is_neighbour(text.get(at + 1))
}

/// A display name as it is shown: in normalisation form C, without [hidden](is_hidden) characters, but for joiners between
/// letters that are not ASCII, and without spaces around it, cut after `chars_max` characters. `None` if nothing is left.
pub(crate) fn shown_name(name: &str, chars_max: usize) -> Option<String> {
    let read: Vec<char> = name.chars().take(NAME_CHARS_READ_MAX).collect();
    let seen = (0..read.len()).filter(|at| !is_hidden(read[*at]) || joins(&read, *at)).map(|at| read[at]);
    let normalised = ComposingNormalizerBorrowed::new_nfc().normalize_iter(seen);
    let shown: String = normalised.skip_while(|c| c.is_whitespace()).take(chars_max).collect();
    let shown = shown.trim_end();
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// Text of strangers for one line of a log: characters that show nothing of their own are escaped as in Rust (`\n`, `\u{202e}`), and
/// what exceeds 1024 bytes is left out.
///
/// It writes no quotes and leaves backslashes alone, so that a text may be escaped twice.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaper = Escaper { out: f, bytes_left: ESCAPED_BYTES_MAX - ELLIPSIS.len_utf8(), is_cut: false };
        match write!(escaper, "{}", self.0) {
            // The value is not asked for more than is shown.
            Err(_) if escaper.is_cut => f.write_char(ELLIPSIS),
            written => written,
        }
    }
}

struct Escaper<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    bytes_left: usize,
    is_cut: bool,
}

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        let is_hidden = is_hidden(c);
        let bytes = if is_hidden { c.escape_default().len() } else { c.len_utf8() };
        let Some(bytes_left) = self.bytes_left.checked_sub(bytes) else {
            self.is_cut = true;
            return Err(fmt::Error);
        };
        self.bytes_left = bytes_left;
        if is_hidden { write!(self.out, "{}", c.escape_default()) } else { self.out.write_char(c) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_have_one_spelling_and_hide_nothing() {
        for (name, expected) in [
            ("Zoë", Some("Zoë")),
            ("Zoe\u{308}", Some("Zoë")),
            ("\u{1112}\u{1161}\u{11ab}", Some("한")),
            // The character between them is gone before the two are put together.
            ("e\u{200d}\u{301}", Some("é")),
            ("a\u{202e}b\u{2066}c\u{200e}\u{200f}\u{61c}d\u{2069}\u{202a}", Some("abcd")),
            ("a\0\u{1b}[31mb\r\nc\u{7f}\u{85}\u{2028}\u{2029}", Some("a[31mbc")),
            ("a\u{200b}\u{200c}\u{2060}\u{feff}\u{ad}\u{3164}b", Some("ab")),
            ("a\u{e000}\u{f0000}\u{10ffff}\u{fffe}\u{fdd0}\u{e0041}b", Some("ab")),
            // Joiners between letters of other scripts, and within emoji.
            ("می\u{200c}خواهم 👩\u{200d}💻", Some("می\u{200c}خواهم 👩\u{200d}💻")),
            ("é\u{200d}\u{200d}é \u{200d}日\u{200d}", Some("éé 日")),
            ("  Ann \u{200b}Lee\u{a0} ", Some("Ann Lee")),
            ("❤\u{fe0f} شيرين 日本", Some("❤\u{fe0f} شيرين 日本")),
            ("\u{200b} \u{3164}", None),
            ("", None),
        ] {
            assert_eq!(shown_name(name, 64).as_deref(), expected, "{name:?}");
        }
        assert_eq!(shown_name(&"é".repeat(65), 64), Some("é".repeat(64)));
        assert_eq!(shown_name(&format!("a{}", "\u{301}".repeat(1 << 20)), 64).unwrap().chars().count(), 64);
    }

    #[test]
    fn escaped_text_is_one_line_of_bounded_length() {
        assert_eq!(
            Escaped("a\nb\u{1b}[31m\u{202e}c\\ \u{2028}é日").to_string(),
            "a\\nb\\u{1b}[31m\\u{202e}c\\ \\u{2028}é日"
        );
        for unit in ["a", "é", "\n", "\u{202e}", "日"] {
            let escaped = Escaped(unit.repeat(5000)).to_string();
            assert!(escaped.len() <= ESCAPED_BYTES_MAX && escaped.len() > ESCAPED_BYTES_MAX - 16, "{}", escaped.len());
            assert!(escaped.ends_with(ELLIPSIS) && !escaped.contains(is_hidden));
            assert_eq!(Escaped(&escaped).to_string(), escaped, "it may be escaped twice");
        }
    }
}
