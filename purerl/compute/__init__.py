"""How a given computation is made fast on a given machine; knows no policy, environment, config or metric."""
