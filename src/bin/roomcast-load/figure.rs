//! How figures are written.

/// Three significant digits, and at most three decimals: `12.9 M`, `808 k`, `10.1`, `0.850`. A number without a fraction
/// is written in full below ten thousand.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    let (scaled, unit) = match magnitude {
        9_999.5..999_500.0 => (value / 1e3, " k"),
        999_500.0..999.5e6 => (value / 1e6, " M"),
        999.5e6.. => (value / 1e9, " G"),
        _ if value.fract() == 0.0 => return format!("{value:.0}"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        99.95.. => 0,
        9.995.. => 1,
        0.9995.. => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_never_lose_their_size() {
        let cases = [
            (0.0, "0"),
            (0.0154, "0.015"),
            (0.85, "0.850"),
            (1.0, "1"),
            (9.9999, "10.0"),
            (10.055, "10.1"),
            (536.575, "537"),
            (5298.7, "5299"),
            (10_000.0, "10.0 k"),
            (808_109.0, "808 k"),
            (999_900.0, "1.00 M"),
            (12_940_000.0, "12.9 M"),
            (3.2e9, "3.20 G"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected, "{value}");
        }
    }
}
