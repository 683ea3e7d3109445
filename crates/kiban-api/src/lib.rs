//! The custom resources of Kiban: types, conditions, CEL rules, offline validation, and their conversion into the domain
