//! Parents by evidence: one file per model, and a calibrator that checks each without truth.
