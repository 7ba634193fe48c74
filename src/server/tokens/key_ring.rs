//! All keys of a server, each with a number that it keeps for as long as it is there.

use ring::hmac;

use super::keys::{Algorithm, KeySet, NamedKey, Secret};
use crate::id::KeyNumber;

/// Why no key has signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyError {
    /// No key has the algorithm of the token.
    Algorithm,
    /// Keys of this kind have names, and none has the name in the token.
    UnknownKid,
    /// The signature is none of a key that it may be of.
    Signature,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct KeyRing {
    secrets: Vec<Numbered<Secret>>,
    public: Vec<Numbered<NamedKey>>,
    next_number: KeyNumber,
}

#[derive(Debug)]
struct Numbered<K> {
    number: KeyNumber,
    key: K,
}

impl KeyRing {
    pub(super) fn new(keys: KeySet) -> Self {
        let mut ring = Self { secrets: Vec::new(), public: Vec::new(), next_number: KeyNumber::FIRST };
        ring.replace(keys);
        ring
    }

    /// Has these keys count in place of all others. Gives the numbers of those that are left if some have gone.
    ///
    /// A key is the same one if it verifies the same signatures, whatever its name is and wherever it lies.
    pub(super) fn replace(&mut self, KeySet { secrets, public }: KeySet) -> Option<Vec<KeyNumber>> {
        let (before, next) = (self.numbers(), &mut self.next_number);
        self.secrets = numbered(secrets, &self.secrets, next, |one, other| one == other);
        self.public = numbered(public, &self.public, next, |one, other| one.key == other.key);
        let left = self.numbers();
        before.iter().any(|number| !left.contains(number)).then_some(left)
    }

    fn numbers(&self) -> Vec<KeyNumber> {
        let secrets = self.secrets.iter().map(|secret| secret.number);
        secrets.chain(self.public.iter().map(|key| key.number)).collect()
    }

    /// How many secrets and public keys there are.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.secrets.len(), self.public.len())
    }

    /// The key that has signed a message.
    ///
    /// A key without a name may be of any `kid`. A message without a `kid` may be of any key.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<KeyNumber, KeyError> {
        let mut failure = KeyError::Algorithm;
        for Numbered { number, key } in &self.secrets {
            let Some(key) = key.key(algorithm) else { continue };
            failure = KeyError::Signature;
            if hmac::verify(&key, message, signature).is_ok() {
                return Ok(*number);
            }
        }
        for Numbered { number, key: NamedKey { kid: name, key } } in &self.public {
            if key.algorithm() != algorithm {
                continue;
            }
            if name.as_deref().zip(kid).is_some_and(|(name, kid)| name != kid) {
                if failure == KeyError::Algorithm {
                    failure = KeyError::UnknownKid;
                }
                continue;
            }
            failure = KeyError::Signature;
            if key.has_signed(message, signature) {
                return Ok(*number);
            }
        }
        Err(failure)
    }
}

/// Gives keys the numbers that they have had, and new ones to the others. All are compared with all: they are few, because each
/// token may be compared with all of them, too.
fn numbered<K>(
    keys: Vec<K>,
    before: &[Numbered<K>],
    next: &mut KeyNumber,
    is_same: fn(&K, &K) -> bool,
) -> Vec<Numbered<K>> {
    let mut all = Vec::<Numbered<K>>::new();
    for key in keys {
        let known = all.iter().chain(before).find(|known| is_same(&known.key, &key)).map(|known| known.number);
        let number = known.unwrap_or_else(|| std::mem::replace(next, next.next()));
        all.push(Numbered { number, key });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tokens::keys::PublicKey;

    fn secret(byte: u8) -> Secret {
        Secret::read(&[byte; 32]).unwrap()
    }

    fn public(byte: u8, kid: Option<&str>) -> NamedKey {
        NamedKey { kid: kid.map(str::to_owned), key: PublicKey::ed25519(&[byte; 32]).unwrap() }
    }

    #[test]
    fn a_key_keeps_its_number_while_it_is_there() {
        let [one, two, three, four] =
            std::array::from_fn(|index| (0..index).fold(KeyNumber::FIRST, |number, _| number.next()));
        let first = KeySet { secrets: vec![secret(1), secret(2)], public: vec![public(1, None)] };
        let mut ring = KeyRing::new(first.clone());
        assert_eq!(ring.numbers(), [one, two, three]);
        assert_eq!(ring.replace(first), None);
        // Another order, a second place and another name change nothing; a new key takes nothing away.
        let all = [public(1, Some("a")), public(1, Some("b")), public(2, None)];
        let more = KeySet { secrets: vec![secret(2), secret(1)], public: all.to_vec() };
        assert_eq!(ring.replace(more), None);
        assert_eq!(ring.numbers(), [two, one, three, three, four]);
        let fewer = KeySet { secrets: vec![secret(1)], public: vec![public(1, Some("b"))] };
        assert_eq!(ring.replace(fewer.clone()), Some(vec![one, three]));
        assert_eq!(ring.replace(fewer), None);
        // A key that comes back is a new one: its old connections are on their way out.
        let back = KeySet { secrets: vec![secret(2)], public: Vec::new() };
        assert_eq!(ring.replace(back), Some(vec![four.next()]));
        assert_eq!(ring.replace(KeySet::default()), Some(Vec::new()));
    }
}
