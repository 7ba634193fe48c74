//! The flags with a number for a value, made from the declarations of the library.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use roomcast::internals::{Setting, Unit};

/// Defaults that depend on something else. All other flags have the default of the library.
const DEPENDENT_DEFAULTS: [(&str, &str); 2] = [
    ("max-connections", "what the limit of open files allows"),
    ("data-bytes", "4KiB, or message-bytes if that is less"),
];

/// A flag for each setting that has one.
pub(super) fn args<C: Clone + 'static>(settings: &[Setting<C>]) -> Vec<Arg> {
    settings.iter().filter_map(|setting| Some(arg(setting.clone(), setting.flag?))).collect()
}

/// The environment variable of a flag.
pub(super) fn variable(flag: &str) -> String {
    format!("ROOMCAST_{}", flag.to_uppercase().replace('-', "_"))
}

/// The default of a flag as it is written.
pub(super) fn default_text<C>(setting: &Setting<C>) -> String {
    let dependent = DEPENDENT_DEFAULTS.iter().find(|(flag, _)| Some(*flag) == setting.flag);
    dependent.map_or_else(|| setting.unit.write(setting.default), |(_, text)| (*text).to_owned())
}

fn arg<C: Clone + 'static>(setting: Setting<C>, flag: &'static str) -> Arg {
    let help =
        format!("{} [{}] [default: {}]", setting.doc.replace('`', ""), setting.allowed(), default_text(&setting));
    let value_name = match setting.unit {
        Unit::Count => "N",
        Unit::Bytes => "SIZE",
        Unit::Time => "DURATION",
    };
    let arg = Arg::new(flag).long(flag).env(variable(flag)).value_name(value_name);
    arg.help(help).help_heading(setting.heading).value_parser(move |text: &str| parse(&setting, text))
}

/// Reads an amount and checks that it is allowed.
fn parse<C>(setting: &Setting<C>, text: &str) -> Result<u64, String> {
    let amount = match setting.unit {
        Unit::Count => {
            text.parse().map_err(|_| format!("a whole number is needed, {} is allowed", setting.allowed()))?
        }
        Unit::Bytes => {
            parse_size::parse_size(text).map_err(|error| format!("{error}; sizes are written 64KiB, 1MiB, 4096"))?
        }
        Unit::Time => {
            let duration = humantime::parse_duration(text)
                .map_err(|error| format!("{error}; durations are written 30s, 500ms, 1h 30m"))?;
            duration.as_nanos().div_ceil(1000).try_into().unwrap_or(u64::MAX)
        }
    };
    setting.check(amount).map(|()| amount).map_err(|error| error.to_string())
}

/// The value of a flag or of its environment variable, if one of them was given.
pub(super) fn given(matches: &ArgMatches, flag: &str) -> Option<u64> {
    let is_given = matches!(matches.value_source(flag), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    matches.get_one::<u64>(flag).copied().filter(|_| is_given)
}

/// Sets the fields whose flag or environment variable was given. The others keep their values.
pub(super) fn apply<C>(settings: &[Setting<C>], matches: &ArgMatches, config: &mut C) {
    for setting in settings {
        if let Some(amount) = setting.flag.and_then(|flag| given(matches, flag)) {
            (setting.set)(config, amount);
        }
    }
}
