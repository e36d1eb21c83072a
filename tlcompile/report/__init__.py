"""Pages and drawings of what was compiled. run/ calls it; it knows neither recipes nor files."""
