//! The tables of docs/configuration.md, made from the flags and the declarations.

use clap::Arg;
use roomcast::Config;
use roomcast::internals::Setting;
use roomcast::settings::RoomRule;

use super::numbers;

/// All tables, in Markdown. `text_flags` are the flags without a declaration.
pub(super) fn markdown(text_flags: &[Arg]) -> String {
    let settings = Config::settings();
    let mut out = String::from("| flag | default | |\n|---|---|---|\n");
    for arg in text_flags {
        let default =
            arg.get_default_values().first().map_or("none".to_owned(), |text| format!("`{}`", text.display()));
        out += &format!("| `--{}` | {default} | {} |\n", name(arg), help(arg));
    }
    tables(&mut out, &settings);
    out += "\n### Rooms by pattern\n\n\
            What `--room` sets for the rooms of a pattern, as in `--room 'news-*:say=api,history=500'`.\n\n\
            | setting | allowed | |\n|---|---|---|\n";
    for [name, allowed, doc] in RoomRule::reference() {
        out += &format!("| `{name}` | {allowed} | {doc} |\n");
    }
    #[cfg(feature = "redis")]
    tables(&mut out, &roomcast::bus::RedisConfig::settings());
    out += "\n### Fields of the library\n\n\
            A host that embeds the server can set these as well; they have no flag.\n\n\
            | field | default | allowed | |\n|---|---|---|---|\n";
    for setting in settings.iter().filter(|setting| setting.flag.is_none()) {
        out += &row(&format!("{}.{}", setting.group, setting.field), setting);
    }
    out
}

/// A table for each heading.
fn tables<C>(out: &mut String, settings: &[Setting<C>]) {
    let mut heading = "";
    for setting in settings {
        let Some(flag) = setting.flag else { continue };
        if setting.heading != heading {
            heading = setting.heading;
            *out += &format!("\n### {heading}\n\n| flag | default | allowed | |\n|---|---|---|---|\n");
        }
        *out += &row(&format!("--{flag}"), setting);
    }
}

fn row<C>(name: &str, setting: &Setting<C>) -> String {
    format!("| `{name}` | {} | {} | {} |\n", numbers::default_text(setting), setting.allowed(), setting.doc)
}

fn name(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

/// The help of a flag, safe in a cell of a table.
fn help(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!("{}.", help.trim_end_matches('.').replace('|', "\\|"))
}
