//! Public keys in a JSON Web Key Set (RFC 7517).

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::Value;

use super::keys::{Algorithm, NamedKey, PublicKey};

/// A set of more keys is refused: each of them costs a verification where a token names none.
const KEYS_MAX: usize = 32;

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

/// The fields of the keys that are used here (RFC 7518 section 6, RFC 8037 section 2).
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads the keys of a set that verify tokens. Others are passed over, as RFC 7517 section 5 wants it.
///
/// # Errors
/// The text is no set, has no key that can be used, or has too many.
pub(super) fn read_keys(text: &[u8]) -> Result<Vec<NamedKey>, String> {
    // The place alone, here and below: the errors of serde would repeat what stands there, which may be a secret.
    let set: RawSet = serde_json::from_slice(text)
        .map_err(|error| format!("not a set of keys, at line {} column {}", error.line(), error.column()))?;
    let (count, mut keys, mut problem) = (set.keys.len(), Vec::new(), None);
    for key in set.keys {
        let read = serde_json::from_value(key).map_err(|_| "its fields cannot be read".to_owned()).and_then(read_key);
        match read {
            Ok(key) => keys.push(key),
            Err(reason) => problem = Some(reason),
        }
    }
    match problem {
        _ if keys.len() > KEYS_MAX => Err(format!("{} keys; {KEYS_MAX} are allowed", keys.len())),
        Some(problem) if keys.is_empty() => Err(format!("none of {count} keys can be used; of one: {problem}")),
        _ if keys.is_empty() => Err("a set without keys".to_owned()),
        _ => Ok(keys),
    }
}

fn read_key(raw: RawKey) -> Result<NamedKey, String> {
    if raw.purpose.is_some_and(|purpose| purpose != "sig") {
        return Err("not for signatures".to_owned());
    }
    let bytes = |field: Option<String>, name: &str| {
        let text = field.ok_or_else(|| format!("{name} is missing"))?;
        BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| format!("{name} is not base64url"))
    };
    let key = match (&*raw.kty, raw.crv.as_deref()) {
        ("RSA", _) => PublicKey::rsa(&bytes(raw.n, "n")?, &bytes(raw.e, "e")?)?,
        ("EC", Some("P-256")) => PublicKey::p256(&[vec![4], bytes(raw.x, "x")?, bytes(raw.y, "y")?].concat())?,
        ("OKP", Some("Ed25519")) => PublicKey::ed25519(&bytes(raw.x, "x")?)?,
        _ => return Err("another kind than RSA, EC with P-256 and OKP with Ed25519".to_owned()),
    };
    if raw.alg.is_some_and(|name| Algorithm::named(&name) != Some(key.algorithm())) {
        return Err(format!("for another algorithm than {}", key.algorithm().name()));
    }
    Ok(NamedKey { kid: raw.kid, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn read(keys: &[&str]) -> Result<Vec<NamedKey>, String> {
        let keys: Vec<_> = keys.iter().map(|key| format!("{{{key}}}")).collect();
        read_keys(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn keys_that_cannot_be_used_are_passed_over() {
        let named = format!(r#"{ED25519},"kid":"one","use":"sig","alg":"EdDSA""#);
        let others = [
            r#""kty":"oct","k":"c2VjcmV0""#.to_owned(),
            r#""kty":"EC","crv":"P-521","x":"AA","y":"AA""#.to_owned(),
            r#""kid":"nothing else""#.to_owned(),
            format!(r#"{ED25519},"use":"enc""#),
            format!(r#"{ED25519},"alg":"HS256""#),
        ];
        let all: Vec<&str> = others.iter().map(String::as_str).chain([named.as_str()]).collect();
        let keys = read(&all).unwrap();
        assert_eq!((keys.len(), keys[0].kid.as_deref()), (1, Some("one")));
        for other in others {
            assert!(read(&[&other]).unwrap_err().contains("none of 1 keys can be used"), "{other}");
        }
    }

    #[test]
    fn a_set_has_a_key_and_not_too_many() {
        assert_eq!(read(&[]).unwrap_err(), "a set without keys");
        assert_eq!(read(&[ED25519; 33]).unwrap_err(), "33 keys; 32 are allowed");
        assert_eq!(read(&[ED25519; 32]).unwrap().len(), 32);
        for text in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(
                read_keys(text.as_bytes()).unwrap_err().starts_with("not a set of keys, at line 1 column "),
                "{text}"
            );
        }
    }
}
