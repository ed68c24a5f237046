//! The table of kinds, the one write pipeline (decode, default, mutate, validate, store) and admission.
