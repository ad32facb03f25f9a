"""Reports: pictures, and a page that shows them with everything needed to judge them. Knows no experiment."""
