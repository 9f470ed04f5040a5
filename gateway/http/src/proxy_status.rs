//! `Proxy-Status` (RFC 9209): the kind of failure that a generated error answer stands for.
//!
//! Only the registered kind is sent, never `details`: our messages and the addresses of origins
//! are not shown to clients.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

macro_rules! proxy_errors {
    ($($variant:ident $value:literal $status:ident,)+) => {
        /// Kinds of failure that RFC 9209 §2.3 registers and that a gateway can detect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProxyError {
            $(#[doc = concat!("`", $value, "`")] $variant,)+
        }

        impl ProxyError {
            /// The name in RFC 9209, which is also the label in metrics and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            /// The status that RFC 9209 recommends for it; 508 for loops (RFC 8586 leaves it open).
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// The whole value, as in `lamina; error=connection_refused`.
            pub const fn to_value(self) -> HeaderValue {
                match self { $(Self::$variant => HeaderValue::from_static(concat!("lamina; error=", $value)),)+ }
            }

            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant,)+];
        }
    };
}

proxy_errors! {
    DnsTimeout "dns_timeout" GATEWAY_TIMEOUT,
    DnsError "dns_error" BAD_GATEWAY,
    DestinationNotFound "destination_not_found" INTERNAL_SERVER_ERROR,
    DestinationUnavailable "destination_unavailable" SERVICE_UNAVAILABLE,
    DestinationIpProhibited "destination_ip_prohibited" BAD_GATEWAY,
    DestinationIpUnroutable "destination_ip_unroutable" BAD_GATEWAY,
    ConnectionRefused "connection_refused" BAD_GATEWAY,
    ConnectionTerminated "connection_terminated" BAD_GATEWAY,
    ConnectionTimeout "connection_timeout" GATEWAY_TIMEOUT,
    ConnectionReadTimeout "connection_read_timeout" GATEWAY_TIMEOUT,
    ConnectionWriteTimeout "connection_write_timeout" GATEWAY_TIMEOUT,
    ConnectionLimitReached "connection_limit_reached" SERVICE_UNAVAILABLE,
    TlsProtocolError "tls_protocol_error" BAD_GATEWAY,
    TlsCertificateError "tls_certificate_error" BAD_GATEWAY,
    TlsAlertReceived "tls_alert_received" BAD_GATEWAY,
    HttpRequestError "http_request_error" BAD_REQUEST,
    HttpRequestDenied "http_request_denied" FORBIDDEN,
    HttpResponseIncomplete "http_response_incomplete" BAD_GATEWAY,
    HttpResponseHeaderSectionSize "http_response_header_section_size" BAD_GATEWAY,
    HttpResponseBodySize "http_response_body_size" BAD_GATEWAY,
    HttpResponseTransferCoding "http_response_transfer_coding" BAD_GATEWAY,
    HttpResponseTimeout "http_response_timeout" GATEWAY_TIMEOUT,
    HttpUpgradeFailed "http_upgrade_failed" BAD_GATEWAY,
    HttpProtocolError "http_protocol_error" BAD_GATEWAY,
    ProxyInternalResponse "proxy_internal_response" GATEWAY_TIMEOUT,
    ProxyInternalError "proxy_internal_error" INTERNAL_SERVER_ERROR,
    ProxyConfigurationError "proxy_configuration_error" INTERNAL_SERVER_ERROR,
    ProxyLoopDetected "proxy_loop_detected" LOOP_DETECTED,
}

impl ProxyError {
    /// Adds our member behind those of proxies nearer to the origin (RFC 9209 §2).
    pub fn append(self, headers: &mut HeaderMap) {
        headers.append(PROXY_STATUS, self.to_value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::PSEUDONYM;
    use sfv::{Dictionary, Parser};

    #[test]
    fn a_failure_names_its_kind() {
        let mut headers = HeaderMap::new();
        ProxyError::ConnectionRefused.append(&mut headers);
        assert_eq!(headers[PROXY_STATUS], "lamina; error=connection_refused");
    }

    #[test]
    fn every_kind_is_an_error_status_and_a_token() {
        for &error in ProxyError::ALL {
            assert!(error.status().is_client_error() || error.status().is_server_error());
            let value = error.to_value();
            assert!(
                Parser::new(value.as_bytes())
                    .parse::<Dictionary>()
                    .is_ok_and(|d| d.contains_key(PSEUDONYM))
            );
        }
    }
}
