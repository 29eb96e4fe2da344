//! Hosts and services: what is due, what an answer means, what state follows, who is told.
