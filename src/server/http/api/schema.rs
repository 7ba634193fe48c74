//! JSON schemas of the bodies and answers of commands.

use serde_json::{Map, Value, json};

use crate::id::NAME_BYTES_MAX;
use crate::protocol::ID_BYTES_MAX;

/// The description of a command.
pub(super) struct Operation {
    /// A sentence.
    pub(super) summary: &'static str,
    /// The schema of the body.
    pub(super) request: Value,
    /// The schema of the answer to a command that was carried out.
    pub(super) response: Value,
}

/// An object with these fields. A `?` behind a name says that the field may be missing or null.
pub(super) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in fields {
        match name.strip_suffix('?') {
            Some(name) => drop(properties.insert(name.to_owned(), or_null(schema))),
            None => {
                required.push(name.to_owned());
                properties.insert(name.to_owned(), schema);
            }
        }
    }
    json!({"type": "object", "properties": properties, "required": required})
}

/// The schema of an answer: fields that may be missing are never null.
pub(super) fn answer<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in fields {
        if !name.ends_with('?') {
            required.push(name);
        }
        properties.insert(name.trim_end_matches('?').to_owned(), schema);
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn or_null(mut schema: Value) -> Value {
    if schema["type"] == "null" {
        return schema;
    }
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind, "null"]);
    } else if schema.get("oneOf").is_some() {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema
}

/// A schema with a sentence beside it.
pub(super) fn described(mut schema: Value, description: &str) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), description.into());
    }
    schema
}

/// The characters beyond ASCII and those of ASCII that names may have. Which of the former are letters and digits is more than a
/// pattern can say.
const NAME_PATTERN: &str = r#"^[^\u0000-\u0020!"$%&'()*,;<>?\[\\\]^`{|}\u007f]+$"#;

/// A name of a room or user.
fn name(description: &str) -> Value {
    let schema = json!({"type": "string", "pattern": NAME_PATTERN, "minLength": 1, "maxLength": NAME_BYTES_MAX});
    let alphabet = format!("1 to {NAME_BYTES_MAX} bytes of letters, digits and -_.:@~+#=/ in Unicode form NFC");
    described(schema, &format!("{description}: {alphabet}."))
}

pub(super) fn room() -> Value {
    name("A room")
}

/// A pattern of room names.
pub(super) fn room_pattern() -> Value {
    let pattern = format!("{}\\*?$", NAME_PATTERN.trim_end_matches("+$").to_owned() + "*");
    let schema = json!({"type": "string", "pattern": pattern, "minLength": 1, "maxLength": NAME_BYTES_MAX});
    described(schema, "Only these rooms: a name, or a beginning and a `*`.")
}

pub(super) fn user_id() -> Value {
    name("A user")
}

/// The text of a message.
pub(super) fn text() -> Value {
    described(json!({"type": "string", "minLength": 1}), "The text, within --message-bytes.")
}

/// Any JSON beside the text.
pub(super) fn data() -> Value {
    described(json!({}), "Any JSON that every receiver can read, within --data-bytes.")
}

/// A name to show.
pub(super) fn shown_name() -> Value {
    described(json!({"type": "string"}), "A name to show beside the user.")
}

/// The id of a message.
pub(super) fn message_id() -> Value {
    let schema = json!({"type": "string", "minLength": 1, "maxLength": ID_BYTES_MAX});
    described(schema, &format!("1 to {ID_BYTES_MAX} bytes, which make the request safe to repeat."))
}

/// A text of a bounded number of bytes.
pub(super) fn text_of_bytes(bytes_max: usize, description: &str) -> Value {
    described(json!({"type": "string", "maxLength": bytes_max}), &format!("{description}, at most {bytes_max} bytes."))
}

/// A whole number.
pub(super) fn number(min: u64, max: u64, description: &str) -> Value {
    described(json!({"type": "integer", "minimum": min, "maximum": max}), description)
}

/// A number that the server gives.
pub(super) fn count(description: &str) -> Value {
    described(json!({"type": "integer", "minimum": 0}), description)
}

pub(super) fn flag(description: &str) -> Value {
    described(json!({"type": "boolean"}), description)
}

/// Which nodes a list covers.
pub(super) fn nodes() -> Value {
    described(json!({"enum": ["all", "this"]}), "The nodes that the list covers.")
}

/// A list of entries.
pub(super) fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// The error in an answer to a request that was not carried out.
pub(super) fn error_detail() -> Value {
    answer([
        ("code", json!({"type": "string"})),
        ("message", described(json!({"type": "string"}), "What was found, and what is allowed.")),
        ("temporary", flag("Whether the same request may succeed later.")),
    ])
}
