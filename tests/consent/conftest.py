"""Makes ``consent_people`` importable for the tests below this folder."""
