"""Downloads: the official archives of the public sets, resumed where they broke off and verified."""
