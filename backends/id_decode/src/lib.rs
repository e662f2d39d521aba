//! id_decode
