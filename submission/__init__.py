"""CodaBench submissions: built from artifacts, checked under the platform's rules, run locally."""
