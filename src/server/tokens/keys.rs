//! The keys that tokens are verified with. The algorithm belongs to the key: a token that names another one finds no key, so that
//! no public key is ever taken for a secret.

use std::fmt;

use ring::{hmac, signature};

/// What an RSA modulus may have, in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// An algorithm of tokens (RFC 7518 section 3, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    const ALL: [(Self, &str); 6] = [
        (Self::Hs256, "HS256"),
        (Self::Hs384, "HS384"),
        (Self::Hs512, "HS512"),
        (Self::Rs256, "RS256"),
        (Self::Es256, "ES256"),
        (Self::EdDsa, "EdDSA"),
    ];

    /// The algorithm with this name, which is compared exactly: `none` has many spellings.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    /// Whether its tokens are verified by a public key.
    pub(super) fn has_public_keys(self) -> bool {
        matches!(self, Self::Rs256 | Self::Es256 | Self::EdDsa)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A secret that the issuer of tokens shares with the server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Box<[u8]>);

/// The least length of a secret: that of the hash of HS256 (RFC 7518 section 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;

impl Secret {
    /// Reads a file with a secret: everything but a line break at the end.
    ///
    /// # Errors
    /// The secret is so short that it could be guessed.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let secret = file.strip_suffix(b"\n").unwrap_or(file);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!("a secret of {} bytes; at least {SECRET_BYTES_MIN} are needed", secret.len()));
        }
        Ok(Self(secret.into()))
    }

    /// The key for an algorithm, unless the secret is shorter than its hash.
    pub(super) fn key(&self, algorithm: Algorithm) -> Option<hmac::Key> {
        let hash = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => return None,
        };
        (self.0.len() >= hash.digest_algorithm().output_len()).then(|| hmac::Key::new(hash, &self.0))
    }

    /// The signature of a message by HS256.
    pub(super) fn sign(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), message)
    }
}

/// A public key of an issuer of tokens.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
    P256(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl PublicKey {
    /// # Errors
    /// The modulus is shorter or longer than allowed.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        // The numbers are unsigned; DER puts a zero before one that would be taken for a negative one.
        let [modulus, exponent] = [modulus, exponent].map(|number| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            Box::<[u8]>::from(&number[zeros..])
        });
        if !RSA_BYTES.contains(&modulus.len()) {
            return Err(format!("an RSA key of {} bits; 2048 to 8192 are allowed", modulus.len() * 8));
        }
        Ok(Self::Rsa { modulus, exponent })
    }

    /// An uncompressed point (SEC 1 section 2.3.3).
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn p256(point: &[u8]) -> Result<Self, String> {
        let is_point = point.len() == 65 && point[0] == 4;
        if is_point { Ok(Self::P256(point.into())) } else { Err("no uncompressed point of P-256".to_owned()) }
    }

    /// # Errors
    /// The key has another length than 32 bytes.
    pub(super) fn ed25519(key: &[u8]) -> Result<Self, String> {
        if key.len() != 32 {
            return Err(format!("an Ed25519 key of {} bytes; 32 are needed", key.len()));
        }
        Ok(Self::Ed25519(key.into()))
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let unparsed: (&dyn signature::VerificationAlgorithm, &[u8]) = match self {
            Self::Rsa { modulus, exponent } => {
                let key = signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                return key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok();
            }
            Self::P256(point) => (&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::Ed25519(key) => (&signature::ED25519, key),
        };
        let (algorithm, key) = unparsed;
        signature::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}

/// Of secrets and keys nothing is ever shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.algorithm().name())
    }
}

/// A public key with the name that its issuer gives it.
#[derive(Clone, Debug)]
pub(super) struct NamedKey {
    pub(super) kid: Option<String>,
    pub(super) key: PublicKey,
}

/// The keys that were read.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    pub(super) secrets: Vec<Secret>,
    pub(super) public: Vec<NamedKey>,
}
