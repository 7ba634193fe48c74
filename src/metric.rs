//! What is counted, for monitoring. A count is declared once, in a line of [`counts!`].

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, in snake case, with the unit last.
    pub name: &'static str,
    /// What it is about, as a label: which of the [shares](crate::settings::MemoryShares) of memory, for example. Several metrics of
    /// one name differ in its value.
    pub label: Option<(&'static str, &'static str)>,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// Its value, as of now.
    pub value: f64,
}

/// How a [`Metric`] moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Up and down.
    Gauge,
    /// Only up.
    Counter,
}

/// What is counted, as a number.
pub(crate) trait MetricValue {
    fn value(self) -> f64;
}

impl MetricValue for u64 {
    fn value(self) -> f64 {
        self as f64
    }
}

impl MetricValue for usize {
    fn value(self) -> f64 {
        self as f64
    }
}

/// 1 or 0.
impl MetricValue for bool {
    fn value(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// In seconds.
impl MetricValue for std::time::Duration {
    fn value(self) -> f64 {
        self.as_secs_f64()
    }
}

/// The name of the gauges that tell how much of each share of memory is held.
pub(crate) const MEMORY_BYTES: &str = "memory_bytes";

/// Declares a struct of counts. A line reads `field: type = Kind("name of the metric");`, and its doc comment is the help of the
/// metric as well. `field: usize = Share("rooms");` is a gauge of what is held of that share of memory.
macro_rules! counts {
    (
        $(#[doc = $about:literal])*
        struct $group:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty = $kind:ident($name:literal);
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $group {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $group {
            /// All of them, as of now.
            pub(crate) fn metrics(&self) -> Vec<$crate::metric::Metric> {
                use $crate::metric::Metric;
                vec![$({
                    let (name, label, kind) = $crate::metric::count_kind!($kind $name);
                    let value = $crate::metric::MetricValue::value(self.$field);
                    Metric { name, label, help: concat!($($doc,)*).trim_start(), kind, value }
                }),*]
            }
        }
    };
}

/// Name, share and kind of a count that [`counts!`] declares.
macro_rules! count_kind {
    (Share $share:literal) => {
        ($crate::metric::MEMORY_BYTES, Some(("share", $share)), $crate::metric::MetricKind::Gauge)
    };
    ($kind:ident $name:literal) => {
        ($name, None, $crate::metric::MetricKind::$kind)
    };
}

pub(crate) use count_kind;

pub(crate) use counts;
