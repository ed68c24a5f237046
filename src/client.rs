//! `kube::Client` construction, leader election, event recorder, shared informers, the keyed work queue and the controller runner.
