"""Other systems' own words for what castfs does: programs go on with their import line changed."""
