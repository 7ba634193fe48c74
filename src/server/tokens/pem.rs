//! Public keys in PEM files: the three kinds that tokens are verified with.

use rustls_pki_types::alg_id;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::keys::PublicKey;

/// Reads all public keys of a PEM file.
///
/// # Errors
/// What was found in the place of a key that can be used.
pub(super) fn read_keys(pem: &[u8]) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|error| format!("not PEM: {error:?}"))?;
        keys.push(match kind {
            SectionKind::PublicKey => read_subject_public_key_info(&der)?,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err("a private key; the server needs the public key alone".to_owned());
            }
            _ => return Err("something else than a public key".to_owned()),
        });
    }
    if keys.is_empty() { Err("no public key (-----BEGIN PUBLIC KEY-----)".to_owned()) } else { Ok(keys) }
}

/// Reads a `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
fn read_subject_public_key_info(der: &[u8]) -> Result<PublicKey, String> {
    let bad = || "not the DER of a public key".to_owned();
    let (info, _) = read_value(der, SEQUENCE).ok_or_else(bad)?;
    let (algorithm, rest) = read_value(info, SEQUENCE).ok_or_else(bad)?;
    let (bits, _) = read_value(rest, BIT_STRING).ok_or_else(bad)?;
    // All of its bits are used: the first byte counts those that are not.
    let Some((0, key)) = bits.split_first().map(|(unused, key)| (*unused, key)) else { return Err(bad()) };
    match algorithm {
        algorithm if algorithm == alg_id::RSA_ENCRYPTION.as_ref() => read_rsa_key(key),
        algorithm if algorithm == alg_id::ECDSA_P256.as_ref() => PublicKey::p256(key),
        algorithm if algorithm == alg_id::ED25519.as_ref() => PublicKey::ed25519(key),
        _ => Err("a key of another kind than RSA, P-256 and Ed25519".to_owned()),
    }
}

/// Reads an `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn read_rsa_key(der: &[u8]) -> Result<PublicKey, String> {
    let numbers = || {
        let (key, _) = read_value(der, SEQUENCE)?;
        let (modulus, rest) = read_value(key, INTEGER)?;
        let (exponent, _) = read_value(rest, INTEGER)?;
        Some((modulus, exponent))
    };
    let (modulus, exponent) = numbers().ok_or("not the DER of an RSA key")?;
    PublicKey::rsa(modulus, exponent)
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// The content of a DER value with this tag, and what follows it.
fn read_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    // Lengths of more than two bytes are longer than any key.
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_that_is_cut_off_anywhere_is_no_key() {
        let (_, der) = <(SectionKind, Vec<u8>)>::pem_slice_iter(ED25519.as_bytes()).next().unwrap().unwrap();
        read_subject_public_key_info(&der).unwrap();
        for end in 0..der.len() {
            read_subject_public_key_info(&der[..end]).unwrap_err();
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        assert_eq!(read_keys(ED25519.repeat(2).as_bytes()).unwrap().len(), 2);
        let section = |kind: &str| format!("-----BEGIN {kind}-----\nMAMCAQE=\n-----END {kind}-----\n");
        for (text, needle) in [
            (String::new(), "no public key"),
            ("a secret".to_owned(), "no public key"),
            (section("PRIVATE KEY"), "a private key"),
            (section("CERTIFICATE"), "something else than a public key"),
            (section("PUBLIC KEY"), "not the DER of a public key"),
            (section("RSA PUBLIC KEY"), "no public key"),
        ] {
            let error = read_keys(text.as_bytes()).unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }
}
