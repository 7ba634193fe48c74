//! What a token says, once its signature is verified: whom it names, and from when until when.

use serde::Deserialize;

use super::config::TokenConfig;
use crate::id::UserId;
use crate::rights::Grants;
use crate::server::authenticator::Identity;
use crate::server::json_field::present;
use crate::time::Now;

/// The claims that count here (RFC 7519 section 4.1). A claim is there with a value of its kind, or it is not there: `null` is
/// refused, because it could stand for everything.
#[derive(Deserialize)]
struct RawClaims {
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    rooms: Option<Grants>,
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Reads and checks the claims of a token that was verified.
///
/// # Errors
/// A sentence with the claim that is missing or wrong.
pub(super) fn identity(now: Now, payload: &[u8], config: &TokenConfig) -> Result<Identity, String> {
    // serde would take an array for an object whose fields have no names.
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Err("its claims are no JSON object".to_owned());
    }
    // The place alone: the error of serde would repeat what stands there.
    let claims: RawClaims = serde_json::from_slice(payload)
        .map_err(|error| format!("its claims cannot be read, at column {}", error.column()))?;
    let expires_at = unix_ms(claims.exp.ok_or("it has no exp")?);
    if now.unix_ms >= expires_at {
        return Err("it has expired".to_owned());
    }
    if claims.nbf.is_some_and(|nbf| now.unix_ms < unix_ms(nbf)) {
        return Err("it is not valid yet".to_owned());
    }
    if let Some(wanted) = &config.audience {
        let is_ours = match &claims.aud {
            Some(Audience::One(found)) => found == wanted,
            Some(Audience::Several(found)) => found.contains(wanted),
            None => false,
        };
        if !is_ours {
            return Err("it is for another audience".to_owned());
        }
    }
    if config.issuer.is_some() && claims.iss != config.issuer {
        return Err("it is of another issuer".to_owned());
    }
    if let Some(grants) = &claims.rooms {
        grants.check_count().map_err(|problem| format!("its rooms: {problem}"))?;
    }
    let user = UserId::new(&claims.sub.ok_or("it has no sub")?).map_err(|error| format!("its sub: {error}"))?;
    let (name, expires_at, grants) = (claims.name, Some(expires_at), claims.rooms);
    Ok(Identity { name, expires_at, grants, ..Identity::verified(user) })
}

/// A `NumericDate` in milliseconds. Before 1970 is 0, and what does not fit is the last moment.
fn unix_ms(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(payload: &str, config: &TokenConfig) -> Result<Identity, String> {
        identity(Now { uptime: Duration::ZERO, unix_ms: 1_000_000 }, payload.as_bytes(), config)
    }

    #[test]
    fn times_are_compared_without_leeway() {
        let any = TokenConfig::default();
        for (times, expected) in [
            (r#""exp":1001"#, Ok(Some(1_001_000))),
            (r#""exp":1000.001"#, Ok(Some(1_000_001))),
            (r#""exp":1e300"#, Ok(Some(u64::MAX))),
            (r#""exp":1000"#, Err("it has expired")),
            (r#""exp":0"#, Err("it has expired")),
            (r#""exp":-5"#, Err("it has expired")),
            (r#""exp":1001,"nbf":1000"#, Ok(Some(1_001_000))),
            (r#""exp":1001,"nbf":1000.001"#, Err("it is not valid yet")),
        ] {
            let found = check(&format!(r#"{{"sub":"ann",{times}}}"#), &any).map(|identity| identity.expires_at);
            assert_eq!(found, expected.map_err(str::to_owned), "{times}");
        }
    }

    #[test]
    fn a_claim_of_the_wrong_kind_is_not_taken_for_one_that_is_missing() {
        let any = TokenConfig::default();
        for claims in [
            r#"{"sub":"ann","exp":null}"#,
            r#"{"sub":"ann","exp":"2000"}"#,
            r#"{"sub":"ann","exp":2000,"nbf":"1"}"#,
            r#"{"sub":"ann","exp":2000,"nbf":null}"#,
            r#"{"sub":7,"exp":2000}"#,
            r#"{"sub":"ann","exp":2000,"name":null}"#,
            r#"{"sub":"ann","exp":2000,"exp":3000}"#,
            r#"{"sub":"ann","exp":2000,"aud":7}"#,
            r#"{"sub":"ann","exp":2000,"rooms":null}"#,
            r#"{"sub":"ann","exp":2000,"rooms":["lobby"]}"#,
            r#"{"sub":"ann","exp":2000,"rooms":[{"match":"a","allow":["join"],"deny":[]}]}"#,
        ] {
            assert!(check(claims, &any).unwrap_err().starts_with("its claims cannot be read"), "{claims}");
        }
        assert_eq!(check(r#"["ann",2000]"#, &any).unwrap_err(), "its claims are no JSON object");
        assert_eq!(check(r#"{"sub":"ann"}"#, &any).unwrap_err(), "it has no exp");
        assert_eq!(check(r#"{"exp":2000}"#, &any).unwrap_err(), "it has no sub");
        assert!(check(r#"{"sub":"a b","exp":2000}"#, &any).unwrap_err().starts_with("its sub: name contains ' '"));
    }

    #[test]
    fn a_token_has_a_bounded_number_of_grants() {
        let claims = |grants: usize| {
            let rooms = vec![r#"{"match":"a","allow":[]}"#; grants].join(",");
            format!(r#"{{"sub":"ann","exp":2000,"rooms":[{rooms}]}}"#)
        };
        assert!(check(&claims(256), &TokenConfig::default()).unwrap().grants.is_some());
        let refused = check(&claims(257), &TokenConfig::default()).unwrap_err();
        assert_eq!(refused, "its rooms: 257 grants; 256 are allowed");
    }

    #[test]
    fn audience_and_issuer_count_where_they_are_configured() {
        let config = TokenConfig { audience: Some("chat".into()), issuer: Some("shop".into()), ..Default::default() };
        let both = |aud: &str, iss: &str| format!(r#"{{"sub":"ann","exp":2000{aud}{iss}}}"#);
        let iss = r#","iss":"shop""#;
        for aud in [r#","aud":"chat""#, r#","aud":["mail","chat"]"#] {
            check(&both(aud, iss), &config).unwrap();
            check(&both(aud, iss), &TokenConfig::default()).unwrap();
        }
        for aud in ["", r#","aud":"chat2""#, r#","aud":[]"#, r#","aud":["mail"]"#] {
            assert_eq!(check(&both(aud, iss), &config).unwrap_err(), "it is for another audience", "{aud}");
        }
        for iss in ["", r#","iss":"Shop""#] {
            assert_eq!(check(&both(r#","aud":"chat""#, iss), &config).unwrap_err(), "it is of another issuer", "{iss}");
        }
    }
}
