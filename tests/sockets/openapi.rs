//! The description of the API.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::api::{KEY, check_refused, json_of, post, server_with};
use crate::support::{Raw, Response, Server, request};

fn ask(server: &Server, method: &str, headers: &[(&str, &str)]) -> Response {
    let mut raw = Raw::connect(server.address());
    let headers = [headers, &[("Connection", "close")]].concat();
    raw.send(request(method, "/api/openapi.json", &headers).as_bytes());
    if method == "HEAD" { raw.response_head() } else { raw.response() }
}

fn description(server: &Server) -> Value {
    let authorization = format!("Bearer {KEY}");
    let response = ask(server, "GET", &[("Authorization", &authorization)]);
    assert_eq!(response.status, 200, "{response:?}");
    json_of(&response)
}

#[test]
fn it_is_for_holders_of_a_key() {
    let server = server_with(&[]);
    let authorization = format!("Bearer {KEY}");
    assert_eq!(ask(&server, "HEAD", &[("Authorization", &authorization)]).status, 200);
    check_refused(&ask(&server, "GET", &[]), 401, "unauthorized", &["no Authorization"]);
    check_refused(&ask(&server, "GET", &[("Authorization", "Bearer x")]), 401, "unauthorized", &["none of"]);
    let response = ask(&server, "POST", &[("Authorization", &authorization), ("Content-Length", "0")]);
    check_refused(&response, 405, "method_not_allowed", &["POST", "GET"]);
    assert_eq!(response.header("allow"), Some("GET, HEAD"));
    check_refused(&ask(&Server::spawn(&[]), "GET", &[]), 404, "not_found", &["the API is off"]);
}

#[test]
fn it_has_every_path_and_every_path_is_there() {
    let server = server_with(&[]);
    let description = description(&server);
    let described: BTreeSet<_> = description["paths"].as_object().unwrap().keys().cloned().collect();
    // The answer to a path that is not there names those that are.
    let answer = post(server.address(), "/api/nothing", &json!({}));
    let message = json_of(&answer)["error"]["message"].as_str().unwrap().to_owned();
    let named: BTreeSet<_> = message.rsplit_once("there are ").unwrap().1.split(", ").map(str::to_owned).collect();
    assert_eq!(described, named);
    assert!(described.len() > 10, "{described:?}");
    for (path, item) in description["paths"].as_object().unwrap() {
        let (method, operation) = item.as_object().unwrap().iter().next().expect("a method");
        assert_eq!(
            path,
            &format!(
                "/api/{}",
                if method == "get" { "openapi.json" } else { operation["operationId"].as_str().unwrap() }
            )
        );
        assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{operation}");
        assert!(operation["responses"]["200"]["content"]["application/json"]["schema"].is_object(), "{operation}");
        if method == "post" {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert!(schema["type"] == "object" || schema["oneOf"].is_array(), "{schema}");
        }
        for reference in
            operation["responses"].as_object().unwrap().values().filter_map(|response| response["$ref"].as_str())
        {
            assert!(description.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }
    assert_eq!(description["security"], json!([{"key": []}]));
    assert_eq!(description["components"]["securitySchemes"]["key"]["scheme"], "bearer");
}
