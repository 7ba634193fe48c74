//! The declaration of settings: one line of [`settings!`] each, from which everything else comes.
//!
//! A line gives the field of a struct with its type, unit and default, the least and the greatest
//! value that is allowed, and the flag that sets it, if there is one. Its doc comment is also the
//! help text of the flag and the text of the reference page. The lines make the struct with its
//! `Default`, and a table of [`Setting`]s. The program makes its flags and environment variables from
//! the table, and [`Config::check`](super::Config::check) checks the bounds with it.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// The unit of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes, written as `64KiB`, `1MiB` or `4096`.
    Bytes,
    /// Microseconds, written as `30s`, `500ms` or `1h`.
    Time,
}

impl Unit {
    /// Writes an amount in the largest unit that needs no fraction.
    pub fn write(self, amount: u64) -> String {
        let units: &[(u64, &str)] = match self {
            Self::Count => &[],
            Self::Bytes => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
            Self::Time => &[
                (86_400_000_000, "d"),
                (3_600_000_000, "h"),
                (60_000_000, "m"),
                (1_000_000, "s"),
                (1000, "ms"),
                (1, "us"),
            ],
        };
        match units.iter().find(|(size, _)| amount > 0 && amount.is_multiple_of(*size)) {
            Some((size, unit)) => format!("{}{unit}", amount / size),
            None if self == Self::Time => "0s".to_owned(),
            None => amount.to_string(),
        }
    }
}

/// A setting of `C` whose value is a number: one line of a declaration.
#[derive(Clone)]
pub struct Setting<C> {
    /// The field of `C` that holds the struct of the setting.
    pub group: &'static str,
    /// The field in that struct.
    pub field: &'static str,
    /// The flag without its dashes. None for a setting that only a host can change.
    pub flag: Option<&'static str>,
    /// The doc comment in one line of Markdown: the meaning, and what happens at the bound.
    pub doc: &'static str,
    /// The heading under which its flag stands.
    pub heading: &'static str,
    /// The unit of the value.
    pub unit: Unit,
    /// The value unless it is set.
    pub default: u64,
    /// The least value that is allowed.
    pub min: u64,
    /// The greatest value that is allowed.
    pub max: u64,
    /// Reads the value.
    pub get: fn(&C) -> u64,
    /// Sets the value, which is within the bounds.
    pub set: fn(&mut C, u64),
}

impl<C> fmt::Debug for Setting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("field", &self.field).field("flag", &self.flag).finish_non_exhaustive()
    }
}

impl<C> Setting<C> {
    /// The name in error messages: the flag, or the field if there is no flag.
    pub fn name(&self) -> &'static str {
        self.flag.unwrap_or(self.field)
    }

    /// The range of allowed values, as text: `1 to 200`, `0 or more`.
    pub fn allowed(&self) -> String {
        let Self { unit, min, max, .. } = self;
        match *max {
            u64::MAX => format!("{} or more", unit.write(*min)),
            max => format!("{} to {}", unit.write(*min), unit.write(max)),
        }
    }

    /// Whether an amount is within the bounds.
    ///
    /// # Errors
    /// [`Error::Config`] with the amount and the range of allowed values.
    pub fn check(&self, amount: u64) -> Result<(), Error> {
        if (self.min..=self.max).contains(&amount) {
            return Ok(());
        }
        Err(refused(self.name(), &self.unit.write(amount), &format!("{} are allowed", self.allowed())))
    }
}

/// The error of a setting with a value that is not allowed.
pub(crate) fn refused(name: &str, found: &str, allowed: &str) -> Error {
    Error::Config(format!("{name} is {found}; {allowed}"))
}

/// Checks the bounds of all settings of a table.
///
/// # Errors
/// [`Error::Config`] for the first value that is out of its bounds.
pub(crate) fn check_all<C>(settings: &[Setting<C>], config: &C) -> Result<(), Error> {
    settings.iter().try_for_each(|setting| setting.check((setting.get)(config)))
}

/// The type of a field.
pub(crate) trait Amount: Copy {
    fn to_amount(self) -> u64;
    fn from_amount(amount: u64) -> Self;
}

impl Amount for u32 {
    fn to_amount(self) -> u64 {
        self.into()
    }

    fn from_amount(amount: u64) -> Self {
        amount.try_into().unwrap_or(Self::MAX)
    }
}

impl Amount for usize {
    fn to_amount(self) -> u64 {
        self as u64
    }

    fn from_amount(amount: u64) -> Self {
        amount.try_into().unwrap_or(Self::MAX)
    }
}

impl Amount for Duration {
    fn to_amount(self) -> u64 {
        // Rounded up, so that a time slightly above a bound does not pass for the bound.
        self.as_nanos().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }

    fn from_amount(amount: u64) -> Self {
        Self::from_micros(amount)
    }
}

/// All settings of something, with the struct `G` among their fields.
pub(crate) trait HasGroup<G> {
    fn group(&self) -> &G;
    fn group_mut(&mut self) -> &mut G;
}

/// Declares which field of all settings holds each struct.
macro_rules! groups {
    ($config:ty { $($place:ident: $group:ty),* $(,)? }) => {
        $(impl $crate::settings::declare::HasGroup<$group> for $config {
            fn group(&self) -> &$group {
                &self.$place
            }

            fn group_mut(&mut self) -> &mut $group {
                &mut self.$place
            }
        })*
    };
}

/// Declares a struct of settings, which is the field `place` of all settings. A line reads
/// `field: type = Unit(default), least..=greatest, flag;`, where the flag is `"name"` or `library`.
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        struct $group:ident at $place:ident, $heading:literal {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty = $unit:ident($default:expr), $min:expr => $max:expr, $flag:tt;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $group {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $group {
            /// The declarations, in their order.
            pub(crate) fn settings<C: $crate::settings::declare::HasGroup<Self>>()
            -> Vec<$crate::settings::declare::Setting<C>> {
                use $crate::settings::declare::{Amount, Setting, Unit};
                vec![$({
                    let (default, min, max): ($type, $type, $type) = ($default, $min, $max);
                    Setting {
                        group: stringify!($place),
                        field: stringify!($field),
                        flag: $crate::settings::declare::flag!($flag),
                        doc: concat!($($doc,)*).trim_start(),
                        heading: $heading,
                        unit: Unit::$unit,
                        default: default.to_amount(),
                        min: min.to_amount(),
                        max: max.to_amount(),
                        get: |config| config.group().$field.to_amount(),
                        set: |config, amount| config.group_mut().$field = <$type>::from_amount(amount),
                    }
                }),*]
            }
        }
    };
}

/// The flag of a line of [`settings!`].
macro_rules! flag {
    (library) => {
        None
    };
    ($flag:literal) => {
        Some($flag)
    };
}

pub(crate) use {flag, groups, settings};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_without_fractions() {
        for (unit, amount, expected) in [
            (Unit::Count, 4096, "4096"),
            (Unit::Bytes, 4096, "4KiB"),
            (Unit::Bytes, 4097, "4097"),
            (Unit::Bytes, 256 << 20, "256MiB"),
            (Unit::Bytes, 0, "0"),
            (Unit::Time, 0, "0s"),
            (Unit::Time, 300, "300us"),
            (Unit::Time, 1_001_000, "1001ms"),
            (Unit::Time, 3_600_000_000, "1h"),
            (Unit::Time, 90_000_000, "90s"),
        ] {
            assert_eq!(unit.write(amount), expected);
        }
    }

    #[test]
    fn a_nanosecond_above_a_bound_is_above_it() {
        assert_eq!((Duration::from_secs(1) + Duration::from_nanos(1)).to_amount(), 1_000_001);
    }
}
