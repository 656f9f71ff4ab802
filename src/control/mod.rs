//! The control API: HTTP/1.1 with JSON over the unix socket. What is asked and answered ([`api`]), the
//! table of routes ([`route`]), who may ([`access`]), the server, the client, the OpenAPI text. Beside it
//! [`celery`]: the same requests as Celery's tools ask them, over Redis.

pub mod access;
pub mod api;
pub mod canvas;
pub mod celery;
pub mod client;
mod dead;
mod error;
pub mod openapi;
pub mod route;
mod route_input;
mod route_table;
pub mod schedules;
pub mod server;
mod server_answer;
mod server_io;
mod status;
pub mod verbs;
