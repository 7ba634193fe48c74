//! The description of the API in OpenAPI 3.1, made from the declarations of the commands.

use serde_json::{Map, Value, json};

use super::answer::{MEDIA_TYPE, to_json};
use super::command::ApiCommand;
use super::schema::{Operation, answer, error_detail};

/// The statuses of refusals, and when they come.
const REFUSALS: [(&str, &str); 12] = [
    ("400", "The body is no JSON object, or a field is missing or out of its bounds."),
    ("401", "The request has no key, or none of the server's."),
    ("403", "The key does not allow the command or the room."),
    ("404", "The server has no key, or nothing is at the path."),
    ("405", "The method is another one."),
    ("408", "The body did not come in time. Temporary."),
    ("411", "There is no Content-Length."),
    ("413", "The message, its data or the body is too large."),
    ("415", "The body is not application/json."),
    ("429", "The room delivers as fast as it can. Temporary."),
    ("503", "The server or its storage is busy, full or away. Temporary."),
    ("504", "No answer came in time. Temporary."),
];

/// The description as JSON.
pub(super) fn description(prefix: &str, commands: &[ApiCommand]) -> Vec<u8> {
    let mut paths: Map<String, Value> =
        commands.iter().map(|command| (format!("{prefix}{}", command.name), json!({"post": post(command)}))).collect();
    paths.insert(format!("{prefix}openapi.json"), json!({"get": get_description()}));
    to_json(&json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Roomcast",
            "summary": "Commands for back-ends of a real-time chat server.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {
                "type": "http",
                "scheme": "bearer",
                "description": "A key of the server, which may be limited to commands and rooms.",
            }},
            "schemas": {"Error": answer([("error", error_detail())])},
            "responses": REFUSALS.iter().map(|(status, when)| (refusal_name(status), refusal(when))).collect::<Map<_, _>>(),
        },
    }))
}

fn post(command: &ApiCommand) -> Value {
    let Operation { summary, request, response } = (command.operation)();
    json!({
        "operationId": command.name,
        "summary": summary,
        "requestBody": {"required": true, "content": {MEDIA_TYPE: {"schema": request}}},
        "responses": responses(&response, &REFUSALS.map(|(status, _)| status)),
    })
}

fn get_description() -> Value {
    let document = json!({"type": "object", "required": ["openapi", "paths"]});
    json!({
        "operationId": "openapi",
        "summary": "This description.",
        "responses": responses(&document, &["401", "404", "405"]),
    })
}

/// The answers of an operation: what it gives if it is carried out, and refusals.
fn responses(schema: &Value, refusals: &[&str]) -> Value {
    let done = json!({"description": "It is carried out.", "content": {MEDIA_TYPE: {"schema": schema}}});
    let reference = |status: &&str| {
        let path = format!("#/components/responses/{}", refusal_name(status));
        ((*status).to_owned(), json!({"$ref": path}))
    };
    let refusals = refusals.iter().map(reference);
    Value::Object(refusals.chain([("200".to_owned(), done)]).collect())
}

fn refusal_name(status: &str) -> String {
    format!("Refused{status}")
}

fn refusal(when: &str) -> Value {
    json!({"description": when, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Error"}}}})
}
