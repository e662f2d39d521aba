//! The W3C trace context, version 00: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

/// A span of a trace, as the header `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) flags: TraceFlags,
}

impl Parent {
    /// Reads a header's value; `None` if it is not a valid `traceparent`.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let parts: Vec<&str> = value.split('-').collect();
        let [version, trace, span, flags, ..] = parts[..] else {
            return None;
        };
        let is = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let shaped = is(version, 2) && is(trace, 32) && is(span, 16) && is(flags, 2);
        // A later version may have more parts; this one has four.
        let counted = parts.len() == 4 || version != "00";
        if !shaped || !counted || version == "ff" {
            return None;
        }
        let parent = Self {
            trace: TraceId::from_hex(trace).ok()?,
            span: SpanId::from_hex(span).ok()?,
            flags: TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        };
        let zero = parent.trace == TraceId::INVALID || parent.span == SpanId::INVALID;
        (!zero).then_some(parent)
    }

    /// A random span of a trace that is not recorded.
    pub(crate) fn unsampled(trace: TraceId) -> Self {
        Self {
            trace,
            span: SpanId::from_bytes(rand::random()),
            flags: TraceFlags::NOT_SAMPLED,
        }
    }

    pub(crate) fn of(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id(),
            span: context.span_id(),
            flags: context.trace_flags(),
        }
    }

    /// Whether whoever started the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// The context in which its children start.
    pub(crate) fn context(self) -> Context {
        let span = SpanContext::new(self.trace, self.span, self.flags, true, TraceState::NONE);
        Context::new().with_remote_span_context(span)
    }
}

/// The header's value.
impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_headers_are_read_and_others_are_not() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Parent::parse(given).unwrap();
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), given);
        // A later version is read as this one.
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-x";
        assert!(!Parent::parse(later).unwrap().is_sampled());
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(Parent::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace: [u8; 16], span: [u8; 8], flags: u8) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let parent = Parent {
                trace: TraceId::from_bytes(trace),
                span: SpanId::from_bytes(span),
                flags: TraceFlags::new(flags),
            };
            prop_assert_eq!(Parent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Some(parent) = Parent::parse(&text) {
                prop_assert!(text.contains(&parent.trace.to_string()));
            }
        }
    }
}
