//! Whole numbers in bodies, however they are written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Beyond it a double skips whole numbers: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number that is not negative. `30.0` is one as well, in JSON Schema and for callers whose numbers are doubles.
#[derive(Clone, Copy, Debug)]
pub(super) struct WholeNumber(u64);

impl From<WholeNumber> for u64 {
    fn from(number: WholeNumber) -> Self {
        number.0
    }
}

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;

        impl Visitor<'_> for AnyNumber {
            type Value = WholeNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<WholeNumber, E> {
                Ok(WholeNumber(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<WholeNumber, E> {
                if number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number) {
                    return Ok(WholeNumber(number as u64));
                }
                Err(E::invalid_value(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_any(AnyNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_have_a_point_and_zeros() {
        let read = |text: &str| serde_json::from_str::<WholeNumber>(text).map(u64::from).ok();
        for (text, expected) in
            [("0", 0), ("30", 30), ("30.0", 30), ("3e1", 30), ("-0.0", 0), ("9007199254740992.0", 1 << 53)]
        {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for bad in ["-1", "-1.0", "0.5", "30.25", "1e300", "\"30\"", "null", "[30]", "true"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
