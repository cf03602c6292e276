"""Control totals: what a backend's counter rose by in a window, and who accounts for it.

counter = matched + explained + suspense. Samples cut the windows; what is under way where one ends is carried
into the next, so that ordinary calls are in nobody's suspense however busy the backend is.
"""
