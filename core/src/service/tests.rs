//! The frame on the wire, against a small fake of the Runtime API.
