//! `lamina demo-origin`: a small web site to try the gateway on.
