"""Operations on the routes of a map."""
