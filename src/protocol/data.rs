//! Whether every reader of JSON can read what is passed on as it is: grammar alone does not promise that.
//!
//! RFC 8259 leaves open how deep values may nest (section 9), how large numbers may be (section 6), and what half a surrogate
//! pair means (section 8.2). A strict receiver refuses a message that goes too far, as long as it stays in history.

/// How many arrays and objects `data` may have around a value.
const DEPTH_MAX: usize = 64;

/// A number of so many bytes without an exponent is finite: a double reaches beyond 10^308.
const PLAIN_BYTES_MAX: usize = 308;

/// How much of a number is shown.
const SHOWN_BYTES_MAX: usize = 32;

/// Checks JSON whose grammar has been checked. It is read once, and nothing is allocated unless it is refused.
///
/// # Errors
/// What was found and what is allowed.
pub(crate) fn check_data(json: &str) -> Result<(), String> {
    let bytes = json.as_bytes();
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = check_string(json, at + 1)?;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                at = check_number(json, at)?;
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    if deepest > DEPTH_MAX {
        return Err(format!("data has {deepest} levels of arrays and objects; {DEPTH_MAX} are allowed"));
    }
    Ok(())
}

/// Checks the text of a string from `at` on; says where what follows its end begins.
fn check_string(json: &str, mut at: usize) -> Result<usize, String> {
    let bytes = json.as_bytes();
    loop {
        match bytes.get(at) {
            None | Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = check_escape(json, at)?,
            Some(_) => at += 1,
        }
    }
}

/// Checks the escape that begins at `at`; says where what follows it begins.
fn check_escape(json: &str, at: usize) -> Result<usize, String> {
    match unit_at(json, at) {
        // What is escaped by one letter.
        None => Ok(at + 2),
        Some(0xd800..=0xdbff) if matches!(unit_at(json, at + 6), Some(0xdc00..=0xdfff)) => Ok(at + 12),
        Some(0xd800..=0xdfff) => {
            let found = json.get(at..at + 6).unwrap_or_default();
            Err(format!("data contains {found} without its other half; only pairs of surrogates are allowed"))
        }
        Some(_) => Ok(at + 6),
    }
}

/// The UTF-16 unit that an escape at `at` stands for, if there is one of that kind.
fn unit_at(json: &str, at: usize) -> Option<u32> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u32::from_str_radix(digits, 16).ok()
}

/// Checks the number that begins at `at`; says where what follows it begins.
fn check_number(json: &str, at: usize) -> Result<usize, String> {
    let of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let bytes = json.as_bytes()[at..].iter().take_while(|byte| of_number(byte)).count();
    let number = &json[at..at + bytes];
    let is_plain = bytes <= PLAIN_BYTES_MAX && !number.contains(['e', 'E']);
    if is_plain || number.parse().is_ok_and(f64::is_finite) {
        return Ok(at + bytes);
    }
    let (shown, rest) = number.split_at(bytes.min(SHOWN_BYTES_MAX));
    let ellipsis = if rest.is_empty() { "" } else { "…" };
    Err(format!("data contains the number {shown}{ellipsis}; at most {:e} is allowed", f64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_of_surrogates_is_found_wherever_it_stands() {
        let halves = [r"\ud800", r"\udbff", r"\udc00", r"\uDFFF"];
        for before in ["", "x", "ü", r"\\", r"\u0041", r"\ud83d\ude00", r#"\""#] {
            for after in ["", "x", "ü", r"\\", r"\u0041", r"\ud83d\ude00", r"\n"] {
                for half in halves {
                    let refused = check_data(&format!(r#"{{"a":["{before}{half}{after}"]}}"#)).unwrap_err();
                    assert!(refused.contains(&half[..4]), "{before}{half}{after}: {refused}");
                    assert_eq!(check_data(&format!(r#"["{before}\{half}{after}"]"#)), Ok(()));
                }
                for pair in [r"\ud800\udc00", r"\uDBFF\uDFFF"] {
                    assert_eq!(check_data(&format!(r#"["{before}{pair}{after}"]"#)), Ok(()));
                }
            }
        }
    }

    #[test]
    fn numbers_are_finite() {
        let max = format!("{:.0}", f64::MAX);
        for good in ["0", "-0.0e-0", "1e308", "-1.7976931348623157E+308", "1e-999999", &max, &"9".repeat(308)] {
            assert_eq!(check_data(&format!("[{good}, {good}]")), Ok(()), "{good}");
        }
        let huge = max + "0";
        for bad in ["1e309", "-1e309", "1.8E308", "0.1e999999999999999999999", &huge] {
            let refused = check_data(&format!("[1, {bad}]")).unwrap_err();
            assert!(refused.ends_with("at most 1.7976931348623157e308 is allowed"), "{refused}");
        }
    }

    #[test]
    fn levels_are_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}\"[[[[\"{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_data(&nested(64)), Ok(()));
        assert_eq!(check_data(&format!("[{}, {}]", nested(63), nested(63))), Ok(()));
        let refused = check_data(&nested(65)).unwrap_err();
        assert_eq!(refused, "data has 65 levels of arrays and objects; 64 are allowed");
    }

    #[test]
    fn what_is_no_json_at_all_does_not_end_the_server() {
        for text in ["", "\"", "\"\\", "\"\\u", "\"\\ud8", "\"\\ud800", "\"\\uüüüü", "]]", "-", "\"\\ü", "e", "1e"]
        {
            let _ = check_data(text);
        }
    }
}
