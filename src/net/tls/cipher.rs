//! One direction of a session that has agreed on keys: content into records, or records into content.
//!
//! It is pure, and knows neither what the content says nor when the key is to be changed. A record is made with one copy of its
//! content, into memory that the caller lends; it is opened where it lies.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, PeerMisbehaved, ProtocolVersion};

use super::fault::Fault;
use super::received::Unusable;
use super::record::{APPLICATION_DATA, HEADER_BYTES, RECORD_BYTES, header};

/// All ciphers of both versions have a tag of this size.
const TAG_BYTES: usize = MAX_TAG_LEN;

/// The part of the nonce that TLS 1.2 sends with AES-GCM (RFC 5288 section 3).
const EXPLICIT_NONCE_BYTES: usize = 8;

/// The key of one direction, and how many records it was used for.
pub(super) struct Cipher {
    framing: Framing,
    iv: [u8; NONCE_LEN],
    /// The number of the next record. A nonce is made of it, so it is never used twice.
    next: u64,
    key: LessSafeKey,
}

/// How a record lies on the wire, and what is authenticated besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// TLS 1.3: the type stands behind the content, and padding may follow; the header is authenticated (RFC 8446
    /// section 5.2).
    InnerType,
    /// TLS 1.2 with AES-GCM: a part of the nonce stands before the content (RFC 5288 section 3).
    ExplicitNonce,
    /// TLS 1.2 with ChaCha20-Poly1305: there is nothing but content and tag (RFC 7905 section 2).
    ImplicitNonce,
}

/// The content of a record, and its type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content<'r> {
    pub(super) kind: u8,
    pub(super) bytes: &'r [u8],
}

impl Cipher {
    /// # Errors
    /// The cipher is not known, which does not happen with those of [`rustls::crypto::ring`].
    pub(super) fn new(
        version: ProtocolVersion,
        (next, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher that is not known".to_owned())),
        };
        let framing = match version {
            ProtocolVersion::TLSv1_3 => Framing::InnerType,
            _ if algorithm == &CHACHA20_POLY1305 => Framing::ImplicitNonce,
            _ => Framing::ExplicitNonce,
        };
        let is_unfit = |_| Error::General("a key of another size".to_owned());
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(is_unfit)?);
        let iv = iv.as_ref().try_into().map_err(|_| Error::General("a nonce of another size".to_owned()))?;
        Ok(Self { framing, iv, next, key })
    }

    /// How many records the key was used for.
    #[inline]
    pub(super) fn records(&self) -> u64 {
        self.next
    }

    /// Makes a record of content, at most [`RECORD_BYTES`] of it; says how many bytes of `out` it takes.
    ///
    /// # Errors
    /// [`Unusable`] if `out` is too short, or there are no more numbers.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8], out: &mut [u8]) -> Result<usize, Unusable> {
        debug_assert!(content.len() <= RECORD_BYTES);
        let before = self.framing.bytes_before();
        let body_bytes = before + content.len() + self.framing.bytes_behind() + TAG_BYTES;
        let out = out.get_mut(..HEADER_BYTES + body_bytes).ok_or(Unusable)?;
        let (number, nonce) = self.take_number().ok_or(Unusable)?;
        let (start, body) = out.split_at_mut(HEADER_BYTES + before);
        let (text, tag) = body.split_at_mut(body.len() - TAG_BYTES);
        text[..content.len()].copy_from_slice(content);
        let sealed = match self.framing {
            Framing::InnerType => {
                let header = header(APPLICATION_DATA, body_bytes);
                start.copy_from_slice(&header);
                text[content.len()] = kind;
                self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), text)
            }
            Framing::ExplicitNonce | Framing::ImplicitNonce => {
                start[..HEADER_BYTES].copy_from_slice(&header(kind, body_bytes));
                start[HEADER_BYTES..].copy_from_slice(&nonce[NONCE_LEN - before..]);
                let additional = additional(number, header(kind, content.len()));
                self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(additional), text)
            }
        };
        tag.copy_from_slice(sealed.map_err(|_| Unusable)?.as_ref());
        Ok(HEADER_BYTES + body_bytes)
    }

    /// Opens a whole record where it lies.
    ///
    /// # Errors
    /// It was not made with this key as the next one, or carries more than a record may, or nothing that has a type.
    pub(super) fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<Content<'r>, Fault> {
        let is_broken = || Fault::new(AlertDescription::BadRecordMac, Error::DecryptError);
        let (number, mut nonce) = self.take_number().ok_or_else(is_broken)?;
        let before = self.framing.bytes_before();
        let (start, body) = record.split_at_mut_checked(HEADER_BYTES + before).ok_or_else(is_broken)?;
        let Some(text_bytes) = body.len().checked_sub(TAG_BYTES) else { return Err(is_broken()) };
        let kind = start[0];
        let opened = match self.framing {
            Framing::InnerType => {
                // The version of the header is to be ignored (RFC 8446 section 5.1).
                let additional = header(kind, body.len());
                self.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(additional), body)
            }
            Framing::ExplicitNonce | Framing::ImplicitNonce => {
                nonce[NONCE_LEN - before..].copy_from_slice(&start[HEADER_BYTES..]);
                let mut header = header(kind, text_bytes);
                header[1..3].copy_from_slice(&start[1..3]);
                let additional = additional(number, header);
                self.key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(additional), body)
            }
        };
        let text = opened.map_err(|_| is_broken())?;
        let content = match self.framing {
            Framing::InnerType => without_padding(text)?,
            Framing::ExplicitNonce | Framing::ImplicitNonce => Content { kind, bytes: text },
        };
        if content.bytes.len() > RECORD_BYTES {
            return Err(Fault::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
        }
        Ok(content)
    }

    /// The number of the next record, and the nonce that is made of it (RFC 8446 section 5.3, RFC 7905 section 2). AES-GCM of TLS
    /// 1.2 leaves it to the sender how the explicit part is made; rustls hands out its beginning for this construction.
    fn take_number(&mut self) -> Option<(u64, [u8; NONCE_LEN])> {
        let number = self.next;
        self.next = number.checked_add(1)?;
        let mut nonce = self.iv;
        nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, of_number)| *byte ^= of_number);
        Some((number, nonce))
    }
}

impl Framing {
    /// The bytes between header and content.
    fn bytes_before(self) -> usize {
        match self {
            Self::ExplicitNonce => EXPLICIT_NONCE_BYTES,
            Self::InnerType | Self::ImplicitNonce => 0,
        }
    }

    /// The bytes that are encrypted behind the content.
    fn bytes_behind(self) -> usize {
        match self {
            Self::InnerType => 1,
            Self::ExplicitNonce | Self::ImplicitNonce => 0,
        }
    }
}

/// What TLS 1.2 authenticates besides the content: its number and its header as if it were not encrypted (RFC 5246
/// section 6.2.3.3).
fn additional(number: u64, header: [u8; HEADER_BYTES]) -> [u8; 8 + HEADER_BYTES] {
    let mut additional = [0; 8 + HEADER_BYTES];
    additional[..8].copy_from_slice(&number.to_be_bytes());
    additional[8..].copy_from_slice(&header);
    additional
}

/// Finds the type behind the content, and leaves padding out (RFC 8446 section 5.4).
fn without_padding(text: &[u8]) -> Result<Content<'_>, Fault> {
    if text.len() > RECORD_BYTES + 1 {
        return Err(Fault::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord));
    }
    match text.iter().rposition(|byte| *byte != 0) {
        None => Err(Fault::unexpected(PeerMisbehaved::IllegalTlsInnerPlaintext)),
        Some(end) => Ok(Content { kind: text[end], bytes: &text[..end] }),
    }
}

#[cfg(test)]
mod tests;
