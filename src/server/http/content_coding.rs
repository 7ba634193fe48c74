//! The content codings of files, and which of them a request prefers (RFC 9110 sections 8.4 and 12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// How a file is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentCoding {
    Identity,
    Gzip,
    Brotli,
}

impl ContentCoding {
    /// All codings. Of those that a request likes alike, the last one is chosen: it is the smallest.
    const ALL: [Self; 3] = [Self::Identity, Self::Gzip, Self::Brotli];

    /// The name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }

    /// The coding that a request likes best, or `None` if it refuses all of them.
    pub(super) fn choose(headers: &HeaderMap) -> Option<Self> {
        let liked = Self::ALL.map(|coding| (coding, coding.quality(headers)));
        liked
            .into_iter()
            .filter(|(_, quality)| *quality > 0)
            .max_by_key(|(_, quality)| *quality)
            .map(|(coding, _)| coding)
    }

    /// How much a request likes this coding, up to 1000; 0 refuses it.
    fn quality(self, headers: &HeaderMap) -> u16 {
        let listed = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut rest = None;
        for element in listed.flat_map(|value| value.split(',')) {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let name = name.trim();
            if name.eq_ignore_ascii_case(self.name()) || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip")) {
                return quality_of(parameters);
            }
            if name == "*" {
                rest = rest.or_else(|| Some(quality_of(parameters)));
            }
        }
        // What is not listed is not wanted, but identity is better than nothing. A request without the field would have to take
        // anything; a program that sends none seldom can.
        rest.unwrap_or(if self == Self::Identity { 1 } else { 0 })
    }
}

/// The weight among the parameters of a coding, in thousandths. One that cannot be read refuses the coding: a client that is sent
/// what it cannot decode has nothing.
fn quality_of(parameters: &str) -> u16 {
    let weight = parameters.split(';').map(str::trim).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    let Some(weight) = weight else { return 1000 };
    match weight.parse::<f32>() {
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[&str], expected: Option<ContentCoding>) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(ACCEPT_ENCODING, field.parse().unwrap());
        }
        assert_eq!(ContentCoding::choose(&headers), expected, "{fields:?}");
    }

    #[test]
    fn the_coding_that_is_liked_best_is_chosen() {
        use ContentCoding::{Brotli, Gzip, Identity};
        check(&[], Some(Identity));
        check(&[""], Some(Identity));
        check(&["deflate, zstd"], Some(Identity));
        check(&["gzip, deflate, br, zstd"], Some(Brotli));
        check(&["gzip", "br"], Some(Brotli));
        check(&["gzip, deflate"], Some(Gzip));
        check(&["GZip"], Some(Gzip));
        check(&["x-gzip"], Some(Gzip));
        check(&["br;q=0.5, gzip;q=0.8"], Some(Gzip));
        check(&["br ; Q=0.5 , gzip ; q=0.501"], Some(Gzip));
        check(&["br;q=0.001"], Some(Brotli));
        check(&["br;q=0, gzip;q=0.0"], Some(Identity));
        check(&["identity, gzip;q=0.9"], Some(Identity));
        check(&["*"], Some(Brotli));
        check(&["*;q=0.5, gzip"], Some(Gzip));
        check(&["*, br;q=0"], Some(Gzip));
        check(&["*;q=0, identity;q=0.1"], Some(Identity));
        check(&["identity;q=0, br"], Some(Brotli));
    }

    #[test]
    fn a_request_may_refuse_everything() {
        check(&["*;q=0"], None);
        check(&["identity;q=0"], None);
        check(&["identity;q=0, deflate"], None);
    }

    #[test]
    fn a_weight_that_cannot_be_read_refuses() {
        use ContentCoding::{Gzip, Identity};
        for weight in ["q=", "q=x", "q=2", "q=-1", "q=nan", "q=inf"] {
            check(&[&format!("br;{weight}, gzip;q=0.1")], Some(Gzip));
            check(&[&format!("br;{weight}")], Some(Identity));
        }
    }
}
